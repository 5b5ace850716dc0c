"""Reads the names of the tensors in a LoRA file: which layer each belongs to, and which part of the
LoRA it is.

A name is a prefix (the denoiser's in the pipeline, or the trainer's), the layer's name, and the
part of the LoRA. Every spelling that diffusers, ComfyUI or kohya's scripts read is a row here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.common.errors import InvalidInput

Part = Literal["A", "B", "alpha"]

#: Ends of names. The first group belongs to the layer's name; peft puts the adapter's name before
#: `weight`.
_PARTS: tuple[tuple[re.Pattern[str], Part], ...] = (
    (re.compile(r"()\.lora_A(\.\w+)?\.weight$"), "A"),
    (re.compile(r"()\.lora_B(\.\w+)?\.weight$"), "B"),
    (re.compile(r"()\.lora_down(\.\w+)?\.weight$"), "A"),
    (re.compile(r"()\.lora_up(\.\w+)?\.weight$"), "B"),
    # diffusers before peft; `.lora_linear_layer` in text encoders only.
    (re.compile(r"()\.lora(_linear_layer)?\.down\.weight$"), "A"),
    (re.compile(r"()\.lora(_linear_layer)?\.up\.weight$"), "B"),
    # Attention processors: `to_q_lora`, and XLabs' `qkv_lora1`.
    (re.compile(r"_lora(\d?)\.down\.weight$"), "A"),
    (re.compile(r"_lora(\d?)\.up\.weight$"), "B"),
    (re.compile(r"()\.alpha$"), "alpha"),
)

#: Files that are not plain LoRAs: a part of their names, what they are called, and what to do
#: instead.
_PLAIN = "or extract a plain LoRA from the merged model"
_OTHER_KINDS = (
    (
        re.compile(r"\.(dora_scale|lora_magnitude_vector)\b"),
        "a DoRA",
        f"train it without DoRA (peft: use_dora=False), {_PLAIN}",
    ),
    (re.compile(r"\.hada_"), "a LoHa", f"train it with LyCORIS's algo=lora, {_PLAIN}"),
    (re.compile(r"\.lokr_"), "a LoKr", f"train it with LyCORIS's algo=lora, {_PLAIN}"),
    (re.compile(r"\.oft_"), "an OFT", f"train a LoRA, {_PLAIN}"),
    (re.compile(r"\.[ab][12]\.weight$"), "a GLoRA", f"train a LoRA, {_PLAIN}"),
    (re.compile(r"\.on_input$"), "an (IA)³", f"train a LoRA, {_PLAIN}"),
    (
        re.compile(r"\.(lora_mid|lora_t[12])\b"),
        "a LoRA with a Tucker core",
        f"train it with use_tucker=False, {_PLAIN}",
    ),
    (
        re.compile(r"(\.|_)(bias|diff_b|b_norm)$"),
        "a LoRA with biases",
        f"train it without (peft: bias='none', lora_bias=False), {_PLAIN}",
    ),
    (
        re.compile(r"\.(diff|w_norm)$"),
        "a LoRA with whole weights beside it",
        f"train it without (LyCORIS: train_norm=False), {_PLAIN}",
    ),
)

_TEXT_ENCODER = re.compile(
    r"(base_model\.model\.)?"
    r"(lora_te\d?_|lora_text_encoder|lycoris_te|text_encoders?(_\d)?\.|te\d?\.|text_model\."
    r"|clip_[lg]\.|t5xxl\.|cond_stage_model\.|conditioner\.|bundle_emb\.)"
)
_PREFIX = re.compile(
    r"(base_model\.model\.)?(model\.diffusion_model\.|diffusion_model\.|transformer\.|unet\."
    r"|lora_unet_|lora_transformer_|lycoris_)?"
)
#: Parts that torch.compile and diffusers' attention processors put into names.
_WRAPPERS = re.compile(r"_orig_mod\.|(?<=\.)processor\.")

_REMEDY = "leave everything else out of the file"


@dataclass
class LoraKeys:
    """``layers`` has, for each layer of the denoiser, the names of its parts' tensors.
    ``without_alpha``: the file was saved by peft, which keeps alpha in another file."""

    layers: dict[str, dict[Part, str]] = field(default_factory=dict)
    text_encoder_layers: set[str] = field(default_factory=set)
    without_alpha: bool = False

    @property
    def notes(self) -> Iterator[str]:
        """Sentences about what is not used of the file, and about values that it does not
        contain."""
        if left_out := len(self.text_encoder_layers):
            yield (
                f"{left_out} of its {left_out + len(self.layers)} LoRAs are for text encoders, "
                "which this service doesn't adapt: they are left out, so the file has a "
                "different effect than with them"
            )
        if self.without_alpha:
            yield (
                "peft keeps alpha in adapter_config.json, and this file doesn't contain it: it "
                "is read with alpha equal to rank, as diffusers does; if lora_alpha differs from "
                "r there, multiply the lora_B by lora_alpha / r"
            )


def lora_keys(names: Collection[str], metadata: Mapping[str, str]) -> LoraKeys:
    """The tensors of a file by layer. Raises ``InvalidInput`` for anything but a plain LoRA, for
    two tensors of one part, and for a missing half."""
    found = LoraKeys()
    for name in sorted(names):
        if _TEXT_ENCODER.match(name):
            found.text_encoder_layers.add(_text_encoder_layer(name))
            continue
        layer, part = _split(name)
        parts = found.layers.setdefault(layer, {})
        if part in parts:
            raise InvalidInput(
                f"{_shown(parts[part])} and {_shown(name)} are the same part of one layer's LoRA; "
                "send a file with one LoRA for each layer"
            )
        parts[part] = name
    for layer, parts in found.layers.items():
        _check_whole(layer, parts)
    if not found.layers:
        what = "only LoRAs of text encoders" if found.text_encoder_layers else "no LoRA"
        raise InvalidInput(f"the file holds {what}; send a LoRA for the denoiser")
    found.without_alpha = (
        all(name.startswith("base_model.model.") for name in names)
        and not any("alpha" in parts for parts in found.layers.values())
        and "lora_adapter_metadata" not in metadata
    )
    return found


def _split(name: str) -> tuple[str, Part]:
    for pattern, kind, remedy in _OTHER_KINDS:
        if pattern.search(name):
            raise InvalidInput(f"it is {kind} ({_shown(name)}), which can't be read; {remedy}")
    for ending, part in _PARTS:
        if match := ending.search(name):
            whole = name[: match.start()] + match[1]
            prefix = _PREFIX.match(whole)
            assert prefix is not None
            return _WRAPPERS.sub("", whole[prefix.end() :]), part
    raise InvalidInput(f"{_shown(name)} is not part of a LoRA; {_REMEDY}")


def _check_whole(layer: str, parts: dict[Part, str]) -> None:
    if "A" in parts and "B" in parts:
        return
    if parts.keys() == {"alpha"}:
        raise InvalidInput(f"{_shown(parts['alpha'])} belongs to no LoRA in the file")
    raise InvalidInput(
        f"it has only one half for {_shown(layer)}; a LoRA has lora_A.weight and lora_B.weight"
    )


def _text_encoder_layer(name: str) -> str:
    for ending, _ in _PARTS:
        if match := ending.search(name):
            return name[: match.start()]
    return name


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}…"
