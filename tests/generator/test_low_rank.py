"""What a LoRA adds to one layer: in the base model's dtype, over float32 matrices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from services.generator.adapters.adapted import Adapted, adapted
from services.generator.adapters.low_rank import LowRank

LINEAR = (torch.nn.Linear(48, 40), (2, 9, 48))
POINTWISE = (torch.nn.Conv2d(6, 10, 1), (2, 6, 8, 8))
STRIDED = (torch.nn.Conv2d(6, 10, 3, stride=2, padding=1), (2, 6, 9, 9))
LAYERS = pytest.mark.parametrize(
    ("base", "shape"), [LINEAR, POINTWISE, STRIDED], ids=["linear", "1x1", "3x3"]
)


class Sealed(torch.nn.Linear):
    """A frozen layer whose weight isn't there to be looked at, as a quantised one's."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._linear = [linear]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self._linear[0](x)
        return y

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        raise AssertionError("nobody needs a quantised weight")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def frozen(base: torch.nn.Module, dtype: torch.dtype) -> Any:
    return copy.deepcopy(base).requires_grad_(False).to(dtype)


def lora_on(layer: Adapted, dtype: torch.dtype, scale: float = 2.5, seed: int = 1) -> LowRank:
    """A LoRA of rank 4 with numbers in it, its copies made as a switchboard makes them."""
    lora = layer.new_lora(4, torch.tensor(scale), dtype)
    lora.A.copy_(drawn(*lora.A.shape, seed=seed))
    lora.B.copy_(drawn(*lora.B.shape, seed=seed + 1))
    if dtype != torch.float32:
        lora.a.copy_(lora.A)
        lora.b.copy_(lora.B * scale)
    lora.A.requires_grad_()
    lora.B.requires_grad_()
    return lora


def truth(base: Any, x: torch.Tensor, loras: tuple[LowRank, ...]) -> torch.Tensor:
    """By the definition, in x's dtype."""
    exact = copy.deepcopy(base).to(x.dtype)
    y: torch.Tensor = exact(x)
    for lora in loras:
        A, B, s = lora.A.to(x.dtype), lora.B.to(x.dtype), lora.scale.to(x.dtype)
        if isinstance(base, torch.nn.Conv2d):
            h = functional.conv2d(x, A, stride=base.stride, padding=base.padding)
            y = y + s * functional.conv2d(h, B)
        else:
            y = y + s * (x @ A.T @ B.T)
    return y


def cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    one, two = (tensor.detach().double().flatten() for tensor in (left, right))
    return float(one @ two / one.norm() / two.norm())


@LAYERS
@pytest.mark.parametrize(
    ("dtype", "far"), [(torch.float32, 1e-10), (torch.bfloat16, 1e-4)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("count", [1, 2])
def test_output_and_gradients_are_those_of_the_definition(
    base: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype, far: float, count: int
) -> None:
    layer = adapted(frozen(base, dtype))
    loras = tuple(lora_on(layer, dtype, scale=2.5 - index, seed=index) for index in range(count))
    layer.put_on(loras)
    x = drawn(*shape).to(dtype).requires_grad_()
    y = layer(x)
    assert y.dtype == dtype
    gradient = drawn(*y.shape, seed=9).to(dtype)
    wanted_of = [x, *(half for lora in loras for half in (lora.A, lora.B))]
    found = torch.autograd.grad(y, wanted_of, gradient)
    assert {one.dtype for one in found[1:]} == {torch.float32}
    exact_x = x.detach().double().requires_grad_()
    exact = truth(layer.base_layer, exact_x, loras)
    wanted = torch.autograd.grad(exact, [exact_x, *wanted_of[1:]], gradient.double())
    assert cosine(y, exact) > 1 - far
    for one, other in zip(found, wanted, strict=True):
        assert cosine(one, other) > 1 - far


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_gradient_the_output_is_the_same(
    base: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    layer = adapted(frozen(base, dtype))
    layer.put_on((lora_on(layer, dtype), lora_on(layer, dtype, seed=5)))
    x = drawn(*shape).to(dtype)
    before = x.clone()
    with torch.no_grad():
        y = layer(x)
    assert torch.equal(y, layer(x))
    assert torch.equal(x, before)


def test_neighbours_keep_one_input_between_them_and_nothing_else_of_its_size() -> None:
    """As query, key and value do."""
    layers = [adapted(frozen(LINEAR[0], torch.bfloat16)) for _ in range(3)]
    for layer in layers:
        layer.put_on((lora_on(layer, torch.bfloat16),))
    x = drawn(1, 500, 48).bfloat16().requires_grad_()
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = [layer(x) for layer in layers]
    large = [tensor for tensor in kept.values() if tensor.numel() >= x.numel() / 2]
    assert [tensor.data_ptr() for tensor in large] == [x.data_ptr()]
    assert len(outputs) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_base_layer_is_only_called(dtype: torch.dtype) -> None:
    plain = frozen(LINEAR[0], dtype)
    sealed, layer = adapted(Sealed(plain)), adapted(plain)
    lora = lora_on(layer, dtype)
    x = drawn(*LINEAR[1]).to(dtype).requires_grad_()
    results = []
    for one in (sealed, layer):
        one.put_on((lora,))
        y = one(x)
        results.append([y, *torch.autograd.grad(y.sum(), (x, lora.A, lora.B))])
        with torch.no_grad():
            results[-1].append(one(x))
    assert all(torch.equal(*both) for both in zip(*results, strict=True))


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_forward_pass_that_runs_again_gives_the_same_gradients(
    base: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    layer = adapted(frozen(base, dtype))
    lora = lora_on(layer, dtype)
    layer.put_on((lora,))
    x = drawn(*shape).to(dtype).requires_grad_()

    def gradients(y: Any) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(y.square().sum(), (x, lora.A, lora.B))

    again = gradients(checkpoint(layer, x, use_reentrant=False))
    assert all(torch.equal(*both) for both in zip(again, gradients(layer(x)), strict=True))


def test_other_layers_are_refused() -> None:
    with pytest.raises(TypeError, match="linear and convolution layers, not LayerNorm"):
        adapted(torch.nn.LayerNorm(3))
