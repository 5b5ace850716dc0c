"""y = W x + s B(A(x)), computed in the base model's dtype, over float32 A and B."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.nn import functional

_Context: TypeAlias = Any
_Apply: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LowRank(NamedTuple):
    """The LoRA of one layer, on the layer's device.

    ``A`` [rank, in, …] and ``B`` [out, rank, …] are float32: in bfloat16 most updates at usual
    learning rates are rounded away. ``scale`` is s, of no dimension, so that a compiled layer
    doesn't depend on its value. ``a`` and ``b`` are A and s B in the base model's dtype; where that
    is float32 they are not used.
    """

    A: torch.Tensor
    B: torch.Tensor
    scale: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor


def add_linear(
    base: torch.Tensor, x: torch.Tensor, lora: LowRank, *, in_place: bool
) -> torch.Tensor:
    """``base`` + s B A x, for ``x`` [..., in] and ``base`` [..., out].

    ``in_place`` allows to overwrite ``base``, which is done where no gradient is wanted.
    """
    if x.dtype == lora.A.dtype:
        return base + functional.linear(functional.linear(x, lora.A), lora.B) * lora.scale
    if torch.is_grad_enabled():
        added: torch.Tensor = _AddLinear.apply(base, x, *lora)  # type: ignore[no-untyped-call]
        return added
    h = functional.linear(x, lora.a).flatten(0, -2)
    if in_place and base.is_contiguous():
        base.view(-1, base.shape[-1]).addmm_(h, lora.b.t())
        return base
    return torch.addmm(base.flatten(0, -2), h, lora.b.t()).view(base.shape)


def add_conv(base: torch.Tensor, x: torch.Tensor, lora: LowRank, apply_A: _Apply) -> torch.Tensor:
    """``base`` + s B A x, for images; ``apply_A`` convolves with A as the base layer with its
    weight, B is a convolution of 1 × 1."""
    if x.dtype == lora.A.dtype:
        return base + functional.conv2d(apply_A(x, lora.A), lora.B) * lora.scale
    a: torch.Tensor = _StandIn.apply(lora.A, lora.a, None)  # type: ignore[no-untyped-call]
    b: torch.Tensor = _StandIn.apply(lora.B, lora.b, lora.scale)  # type: ignore[no-untyped-call]
    return base + functional.conv2d(apply_A(x, a), b)


class _AddLinear(torch.autograd.Function):
    """Keeps the base layer's own input for the backward pass, which its neighbours keep too, and
    the few numbers of A x; no copy in another dtype."""

    @staticmethod
    def forward(
        ctx: _Context,
        base: torch.Tensor,
        x: torch.Tensor,
        A: torch.Tensor,  # noqa: ARG004
        B: torch.Tensor,  # noqa: ARG004
        scale: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
    ) -> torch.Tensor:
        h = functional.linear(x, a).flatten(0, -2)
        ctx.save_for_backward(x, h, scale, a, b)
        return torch.addmm(base.flatten(0, -2), h, b.t()).view(base.shape)

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, h, scale, a, b = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_h = rows @ b
        of_x = (of_h @ a).view(x.shape) if ctx.needs_input_grad[1] else None
        of_A = _float32_product(of_h.t(), x.flatten(0, -2))
        of_B = _float32_product(rows.t(), h) * scale
        return gradient, of_x, of_A, of_B, None, None, None


class _StandIn(torch.autograd.Function):
    """``copy`` in the place of ``master``, which gets its gradient, times ``scale``."""

    @staticmethod
    def forward(
        ctx: _Context,
        master: torch.Tensor,  # noqa: ARG004
        copy: torch.Tensor,
        scale: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.scale = scale
        return copy.view_as(copy)

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        exact = gradient.float()
        return exact if ctx.scale is None else exact * ctx.scale, None, None


def _float32_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right, summed up and returned in float32."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
