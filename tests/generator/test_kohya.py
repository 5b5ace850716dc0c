from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from safetensors.torch import save

from services.common.lora_layouts import unet
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import kohya_file
from services.generator.lora.kohya import to_kohya
from services.generator.lora.read import read_lora
from services.generator.lora.safetensors_header import metadata
from tests.generator.rows import ROWS, Row
from tests.generator.test_families import PROMPT, lora_spec

FLUX_SCHNELL = next(row for row in ROWS if row.preset == "flux-schnell")
UNETS = [row for row in ROWS if row.preset in ("sd-1.4", "sdxl-turbo")]
ALL = [*UNETS, *(row for row in ROWS if row.preset in ("flux-schnell", "flux-dev"))]
each_row = pytest.mark.parametrize("row", ALL, ids=str)
each_unet = pytest.mark.parametrize("row", UNETS, ids=str)

_BLOCK = r"transformer_blocks_\d+_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2))"
#: Layer names that ComfyUI's key maps have, by the LoRA prefix of the family: for U-Nets
#: `lora_unet_` and each diffusers name of `unet_to_diffusers`; for FLUX.1 `lora_transformer_` and
#: each of `flux_to_diffusers`.
ACCEPTED = {
    "unet": re.compile(
        r"lora_unet_("
        rf"(down_blocks_\d+|up_blocks_\d+|mid_block)_attentions_\d+_({_BLOCK}|proj_in|proj_out)"
        r"|(down_blocks_\d+|up_blocks_\d+|mid_block)_resnets_\d+_"
        r"(conv1|conv2|time_emb_proj|conv_shortcut)"
        r"|down_blocks_\d+_downsamplers_0_conv|up_blocks_\d+_upsamplers_0_conv"
        r"|conv_in|conv_out|(time|add)_embedding_linear_[12])"
    ),
    "transformer": re.compile(
        r"lora_transformer_("
        r"transformer_blocks_\d+_(attn_(to_(q|k|v|out_0|add_out)|add_(q|k|v)_proj)"
        r"|ff(_context)?_net_(0_proj|2)|norm1(_context)?_linear)"
        r"|single_transformer_blocks_\d+_(attn_to_(q|k|v)|proj_(mlp|out)|norm_linear)"
        r"|x_embedder|context_embedder|proj_out"
        r"|time_text_embed_(timestep|text|guidance)_embedder_linear_[12])"
    ),
}


@cache
def loaded(row: Row) -> GeneratorFamily:
    return row.load()


def kohya(row: Row, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    family = loaded(row)
    assert family.kohya_prefix is not None
    converted = to_kohya(tensors, family.lora_prefix, family.kohya_prefix)
    assert converted is not None
    return converted


def read(file: bytes, family: GeneratorFamily) -> dict[str, torch.Tensor]:
    return {
        f"{family.lora_prefix}.{module}.lora_{half}.weight": getattr(lora, half)
        for module, lora in read_lora(file, family).loras.items()
        for half in "AB"
    }


@pytest.fixture
def exported(row: Row) -> Iterator[Callable[..., dict[str, torch.Tensor]]]:
    """A LoRA of the row's family as the service hands it out, on the targets asked for."""
    adapters: list[LoraAdapter] = []

    def export(*targets: str, trained: bool = True) -> dict[str, torch.Tensor]:
        spec = lora_spec(row)
        if targets:
            spec.target_modules[:] = targets
        adapter = LoraAdapter(loaded(row), f"kohya-{len(adapters)}", spec, seed=0)
        adapters.append(adapter)
        generator = torch.Generator().manual_seed(0)
        for parameter in adapter.parameters if trained else ():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        return adapter.tensors()

    yield export
    for adapter in adapters:
        adapter.remove()


Export = Callable[..., dict[str, torch.Tensor]]
UNUSUAL = {
    "unet": ("proj_in", "ff.net.0.proj", "conv1", "conv_shortcut", "time_emb_proj", "conv_in"),
    "transformer": ("to_k", "proj_mlp", "proj_out", "norm1.linear", "x_embedder"),
}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_families_that_kohya_knows_have_its_file(row: Row, exported: Export) -> None:
    family, tensors = loaded(row), exported()
    files = [kohya_file(tensors, family, rank=4, title=PROMPT) for _ in range(5)]
    if row not in ALL:
        assert files == [None] * 5
        return
    assert files[0] is not None
    assert len(set(files)) == 1
    assert metadata(files[0])["ss_network_dim"] == "4"
    assert_same(read(files[0], family), tensors)
    # No larger than what it holds: names and alphas beside the weights.
    weights = sum(tensor.nbytes for tensor in tensors.values())
    assert len(files[0]) < weights + 400 * len(tensors)


def test_without_a_name_in_kohyas_format_there_is_no_file(schnell: GeneratorFamily) -> None:
    spec = lora_spec(FLUX_SCHNELL)
    spec.target_modules.append("norm_out.linear")
    adapter = LoraAdapter(schnell, "nameless", spec, seed=0)
    assert kohya_file(adapter.tensors(), schnell, rank=4, title=PROMPT) is None
    adapter.remove()


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor), key


@each_row
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("unusual", [True, False])
def test_there_and_back_is_exact(row: Row, exported: Export, trained: bool, unusual: bool) -> None:
    prefix = loaded(row).lora_prefix
    tensors = exported(*(UNUSUAL[prefix] if unusual else ()), trained=trained)
    assert_same(read(save(kohya(row, tensors)), loaded(row)), tensors)


@each_row
@pytest.mark.parametrize("unusual", [True, False])
def test_comfyui_knows_every_key(row: Row, exported: Export, unusual: bool) -> None:
    prefix = loaded(row).lora_prefix
    tensors = exported(*(UNUSUAL[prefix] if unusual else ()))
    converted = kohya(row, tensors)
    for key, tensor in converted.items():
        layer, _, part = key.partition(".")
        assert ACCEPTED[prefix].fullmatch(layer), key
        assert part in ("lora_down.weight", "lora_up.weight", "alpha")
        if part == "alpha":
            assert tensor.shape == ()
            assert float(tensor) == len(converted[f"{layer}.lora_down.weight"])


@each_unet
def test_diffusers_reads_the_same_image_from_both_layouts(row: Row, exported: Export) -> None:
    image, tensors, images = row.images[0], exported(), []
    for layout in ({}, tensors, kohya(row, tensors)):
        pipeline = row.plain()
        if layout:
            pipeline.load_lora_weights(dict(layout))
        images.append(row.draw(pipeline, PROMPT, image, 5))
    base, ours, theirs = images
    assert (ours - theirs).abs().max() <= 0.5e-4
    assert (ours - base).abs().max() > 0.01


#: Of real U-Nets with two resnets a block: SD 1 has four blocks, SDXL three.
ORIGINAL = {
    "input_blocks.0.0": "conv_in",
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.5.0.in_layers.2": "down_blocks.1.resnets.1.conv1",
    "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj": (
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"
    ),
    "middle_block.0.emb_layers.1": "mid_block.resnets.0.time_emb_proj",
    "middle_block.1.transformer_blocks.0.attn2.to_out.0": (
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    ),
    "middle_block.2.out_layers.3": "mid_block.resnets.1.conv2",
    "output_blocks.0.0.skip_connection": "up_blocks.0.resnets.0.conv_shortcut",
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.1.conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks.8.1.proj_in": "up_blocks.2.attentions.2.proj_in",
    "out.2": "conv_out",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
}


@pytest.mark.parametrize(("original", "module"), ORIGINAL.items())
def test_original_names_are_those_of_the_modules(original: str, module: str) -> None:
    resnets = [f"down_blocks.0.resnets.{index}.conv1" for index in range(2)]
    known = [*resnets, "up_blocks.0.attentions.2.proj_in", *ORIGINAL.values()]
    assert unet.original(known)[original].modules == (module,)
