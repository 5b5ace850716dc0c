"""Makes a CPU build keep and launch what a CUDA build does.

CUDA has one kernel each way for ``torch.nn.RMSNorm``, which keeps its input and one number a row;
the CPU decomposes it and keeps float32 copies. Fused attention keeps queries, keys, values, output
and one number a row on both. Not modelled: workspaces of convolutions and matrix products (an
allowance of ``card.py``), and an attention that CUDA can't fuse.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@torch.library.custom_op("dualprocess::rms_norm", mutates_args=())
def _rms_norm(x: torch.Tensor, weight: torch.Tensor | None) -> list[torch.Tensor]:
    raise NotImplementedError


@_rms_norm.register_fake
def _(x: torch.Tensor, weight: torch.Tensor | None) -> list[torch.Tensor]:  # noqa: ARG001
    return [torch.empty_like(x), x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)]


@torch.library.custom_op("dualprocess::rms_norm_backward", mutates_args=())
def _rms_norm_backward(
    gradient: torch.Tensor,
    x: torch.Tensor,
    rms: torch.Tensor,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    raise NotImplementedError


@_rms_norm_backward.register_fake
def _(
    gradient: torch.Tensor,  # noqa: ARG001
    x: torch.Tensor,
    rms: torch.Tensor,  # noqa: ARG001
    weight: torch.Tensor | None,  # noqa: ARG001
) -> torch.Tensor:
    return torch.empty_like(x)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        x = x.contiguous()
        y, rms = torch.ops.dualprocess.rms_norm(x, weight)
        ctx.save_for_backward(x, rms, weight)
        normed: torch.Tensor = y
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return torch.ops.dualprocess.rms_norm_backward(gradients[0], *ctx.saved_tensors), None


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Fake tensors only: the kernels have no numbers."""
    before = torch.nn.RMSNorm.forward

    def forward(norm: torch.nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = _Fused.apply(x, norm.weight)  # type: ignore[no-untyped-call]
        return normed

    torch.nn.RMSNorm.forward = forward  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        torch.nn.RMSNorm.forward = before  # type: ignore[method-assign]
