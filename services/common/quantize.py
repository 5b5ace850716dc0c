"""Quantises a frozen model while it is loaded, layer by layer, and refuses one that got too coarse
to learn through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from services.common.errors import StartError
from services.common.extras import has_nf4
from services.common.memory import Quantization
from services.common.presets import AnyPreset, PresetError
from services.common.quantized_linear import LAYERS, QuantizedLinear

#: The least cosine of a quantised layer's gradient, and of its output, with the original's.
LEAST_COSINE = 0.99
#: Random inputs that a layer is compared on.
_ROWS = 32


def check_quantize(preset: AnyPreset) -> None:
    """Whether the preset's ``quantize`` can be done, before anything is loaded. Raises
    ``PresetError`` for a dtype that it can't be used with, ``StartError`` for a missing package."""
    if preset.quantize in ("int8", "float8") and preset.dtype == "float16":
        raise PresetError(
            f"preset {preset.name}: quantize {preset.quantize} is not for dtype float16, whose "
            "range is too small for it; write dtype bfloat16, or quantize nf4"
        )
    if preset.quantize == "nf4" and not has_nf4():
        raise StartError(
            "quantize nf4 needs the extra quantized: pip install 'dualprocess[quantized]', or "
            "write quantize int8, which needs nothing"
        )


def quantize(
    model: torch.nn.Module, quantization: Quantization, *, on: torch.device, then: torch.device
) -> None:
    """Replaces the linear layers of the model's repeated blocks, each alone on ``on`` and then
    moved to ``then``: no device needs to hold the whole model as it was. What is outside of the
    blocks (embeddings, heads, last layers) stays, and so do convolutions.

    The first, middle and last layer of each shape are compared with what they replace. Raises
    ``StartError`` for one whose output or gradient differs by too much. Weights without values
    (meta and fake tensors) are not compared.
    """
    layers = dict(_linears_of_blocks(model))
    compared = _sample(layers)
    for name, linear in layers.items():
        parent, _, attribute = name.rpartition(".")
        moved = linear.to(on)
        layer = LAYERS[quantization](moved)
        if name in compared and not _is_empty(moved.weight):
            _compare(name, moved, layer, quantization)
        setattr(model.get_submodule(parent), attribute, layer.to(then))


def _linears_of_blocks(
    module: torch.nn.Module, name: str = "", *, in_block: bool = False
) -> Iterator[tuple[str, torch.nn.Linear]]:
    for part, child in module.named_children():
        path = f"{name}.{part}" if name else part
        # Not subclasses, which may use their weight in another way.
        if in_block and type(child) is torch.nn.Linear:
            yield path, child
        repeated = in_block or isinstance(module, torch.nn.ModuleList)
        yield from _linears_of_blocks(child, path, in_block=repeated)


def _sample(layers: dict[str, torch.nn.Linear]) -> set[str]:
    """The first, middle and last name of each shape."""
    by_shape = defaultdict[tuple[int, int], list[str]](list)
    for name, linear in layers.items():
        by_shape[linear.in_features, linear.out_features].append(name)
    return {
        names[index]
        for names in by_shape.values()
        for index in (0, len(names) // 2, len(names) - 1)
    }


def _is_empty(weight: torch.Tensor) -> bool:
    return weight.is_meta or isinstance(weight, FakeTensor)


def _compare(
    name: str, linear: torch.nn.Linear, layer: QuantizedLinear, quantization: Quantization
) -> None:
    generator = torch.Generator("cpu").manual_seed(0)
    like: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
    x = torch.randn(_ROWS, linear.in_features, generator=generator).to(**like)
    cotangent = torch.randn(_ROWS, linear.out_features, generator=generator).to(**like)
    outputs, gradients = zip(*(_run(part, x, cotangent) for part in (linear, layer)), strict=True)
    remedy = "write another quantize, or leave it out"
    for what, (wanted, got) in {"output": outputs, "gradient": gradients}.items():
        if got is None or not got.any():
            raise StartError(f"quantize {quantization}: the {what} of {name} is zero; {remedy}")
        cosine = torch.cosine_similarity(wanted.float().flatten(), got.float().flatten(), dim=0)
        if not cosine >= LEAST_COSINE:
            raise StartError(
                f"quantize {quantization}: {name} is too coarse: its {what} has a cosine of "
                f"{cosine:.3f} with that of the unquantised layer, and {LEAST_COSINE} is the "
                f"least; {remedy}"
            )


def _run(
    layer: torch.nn.Linear, x: torch.Tensor, cotangent: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Output, and gradient to the input; ``None`` where none flows."""
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        y = layer(leaf)
    if not y.requires_grad:
        return y, None
    return y.detach(), torch.autograd.grad(y, leaf, cotangent)[0]
