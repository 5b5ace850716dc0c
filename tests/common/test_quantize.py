"""Frozen linear layers in fewer bits, and the refusal of those that got too coarse."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch

from services.common import quantized_linear
from services.common.errors import StartError
from services.common.memory import Quantization
from services.common.presets import AnyPreset, PresetError, VlmPreset, load_presets
from services.common.quantize import quantize
from services.common.quantized_linear import LAYERS, QuantizedLinear
from services.common.settings import GpuServiceSettings
from services.generator import registry as generators
from services.vlm import registry as vlms

CPU, META = torch.device("cpu"), torch.device("meta")
EACH = pytest.mark.parametrize("quantization", get_args(Quantization))
#: Cosine with the layer that was replaced, for normal weights: measured .99999, .9997 and .9958.
LEAST = {"int8": 0.9999, "float8": 0.999, "nf4": 0.993}
#: Bytes a weight.
MOST_BYTES = {"int8": 1.01, "float8": 1.01, "nf4": 0.54}


def linear(
    columns: int = 256, rows: int = 512, dtype: torch.dtype = torch.float32
) -> torch.nn.Linear:
    generator = torch.Generator().manual_seed(columns + rows)
    layer = torch.nn.Linear(columns, rows)
    with torch.no_grad():
        layer.weight.normal_(generator=generator)
        layer.bias.normal_(generator=generator)
    return layer.to(dtype).requires_grad_(False)


def blocks(*layers: torch.nn.Module) -> torch.nn.Module:
    """A model of repeated blocks between two layers that stay as they are."""
    model = torch.nn.Module()
    model.first = linear(16, 32)
    model.blocks = torch.nn.ModuleList(torch.nn.Sequential(layer) for layer in layers)
    model.head = linear(32, 16)
    return model


def passed(layer: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the gradient of a fixed linear function of it."""
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    (gradient,) = torch.autograd.grad(y, leaf, cotangent)
    return y.detach(), gradient


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.cosine_similarity(one.flatten().double(), other.flatten().double(), dim=0).item()


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
# A row of 48 or 16 is no whole number of NF4's blocks, and 30 × 30 weights are none either.
@pytest.mark.parametrize("shape", [(256, 512), (48, 64), (16, 16), (30, 30)])
def test_output_and_gradient_are_near_the_original(
    quantization: Quantization, dtype: torch.dtype, shape: tuple[int, int]
) -> None:
    original = linear(*shape, dtype=dtype)
    layer = LAYERS[quantization](original)
    x = torch.randn(2, 5, shape[0], generator=torch.Generator().manual_seed(0)).to(dtype)
    for wanted, got in zip(passed(original, x), passed(layer, x), strict=True):
        assert got.dtype == dtype
        assert cosine(wanted, got) > LEAST[quantization]


@EACH
def test_it_computes_exactly_with_the_weight_that_it_has(quantization: Quantization) -> None:
    layer = LAYERS[quantization](linear())
    plain = linear()
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
    x = torch.randn(5, 256)
    for wanted, got in zip(passed(plain, x), passed(layer, x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)


@EACH
def test_nothing_is_kept_for_the_backward_pass(quantization: Quantization) -> None:
    layer = LAYERS[quantization](linear())
    own = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    kept = list[int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.randn(5, 256, requires_grad=True))
    assert kept
    assert set(kept) <= own


@EACH
def test_weights_take_as_many_bytes_as_they_have(quantization: Quantization) -> None:
    layer = LAYERS[quantization](linear(dtype=torch.bfloat16))
    stored = sum(part.nbytes for part in (layer.codes, layer.scales))
    assert stored / (256 * 512) <= MOST_BYTES[quantization]


@EACH
def test_a_cast_of_the_model_leaves_the_codes(quantization: Quantization) -> None:
    layer = LAYERS[quantization](linear())
    cast = copy.deepcopy(layer).to(torch.bfloat16)
    assert torch.equal(cast.codes, layer.codes)
    assert cast.codes.dtype == layer.codes.dtype


@EACH
def test_only_linear_layers_of_blocks_are_quantised(quantization: Quantization) -> None:
    model = blocks(linear(), torch.nn.Conv2d(4, 4, 1), torch.nn.LayerNorm(8), linear())
    quantize(model, quantization, on=CPU, then=CPU)
    assert [name for name, part in model.named_modules() if isinstance(part, QuantizedLinear)] == [
        "blocks.0.0",
        "blocks.3.0",
    ]


@EACH
def test_a_model_without_values_is_quantised(quantization: Quantization) -> None:
    model = blocks(linear()).to(META)
    quantize(model, quantization, on=META, then=META)
    assert isinstance(model.blocks[0][0], QuantizedLinear)  # type: ignore[index]
    assert all(parameter.is_meta for parameter in model.parameters())


def with_outliers() -> torch.nn.Linear:
    """One weight of each block is so large that four bits leave nothing of the others."""
    layer = linear()
    with torch.no_grad():
        layer.weight.mul_(0.02)
        layer.weight[:, ::64] = 1
    return layer


def test_weights_that_are_too_coarse_are_refused() -> None:
    model = blocks(linear(), with_outliers())
    quantize(copy.deepcopy(model), "int8", on=CPU, then=CPU)
    with pytest.raises(StartError, match=r"quantize nf4: blocks\.1\.0 is too coarse: .* 0\.99 is"):
        quantize(model, "nf4", on=CPU, then=CPU)


@EACH
def test_a_layer_without_gradient_is_refused(
    quantization: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = LAYERS[quantization]
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: forward(self, x.detach()))
    with pytest.raises(StartError, match=rf"quantize {quantization}: the gradient of .* is zero"):
        quantize(blocks(linear()), quantization, on=CPU, then=CPU)


@pytest.mark.parametrize("function", ["_RowScaled", "_Nf4"])
def test_a_layer_whose_gradient_is_zeros_is_refused(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = getattr(quantized_linear, function)
    backward = broken.backward

    def zeros(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        first, *others = backward(ctx, gradient)
        return torch.zeros_like(first), *others

    monkeypatch.setattr(broken, "backward", staticmethod(zeros))
    quantization: Quantization = "nf4" if function == "_Nf4" else "int8"
    with pytest.raises(StartError, match=r"the gradient of .* is zero"):
        quantize(blocks(linear()), quantization, on=CPU, then=CPU)


def missing(preset: AnyPreset, **changes: str) -> None:
    """Loads a model that is not there."""
    preset = preset.model_copy(update={"model": "/nowhere", **changes})
    if isinstance(preset, VlmPreset):
        vlms.load(preset, CPU)
    else:
        generators.load(preset, CPU)


PRESETS: list[AnyPreset] = [load_presets().generator("sd-1.4"), load_presets().vlm("llava-1.5")]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_start_without_the_extra_says_which(
    preset: AnyPreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.quantize.has_nf4", lambda: False)
    with pytest.raises(StartError, match=r"pip install 'dualprocess\[quantized\]'"):
        missing(preset, quantize="nf4")
    with pytest.raises(StartError, match="/nowhere can't be loaded"):
        missing(preset, quantize="int8")


def test_scales_do_not_fit_float16() -> None:
    with pytest.raises(PresetError, match="quantize int8 is not for dtype float16"):
        missing(PRESETS[1], quantize="int8", dtype="float16")


def test_the_flag_replaces_what_the_preset_says() -> None:
    settings = GpuServiceSettings(preset="sd-1.4", port=0)
    preset = PRESETS[0].model_copy(update={"quantize": "nf4"})
    assert settings.applied(preset).quantize == "nf4"
    settings = GpuServiceSettings(preset="sd-1.4", port=0, quantize="int8")
    assert settings.applied(preset).quantize == "int8"


def test_a_quantised_preset_needs_less_of_a_card() -> None:
    flux = load_presets().generator("flux-schnell")
    sizes = [flux.model_copy(update={"quantize": one}).weights_gib for one in ("nf4", "int8", None)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] / 1.5 < sizes[2] / 2.5
