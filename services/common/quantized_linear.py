"""Linear layers with frozen weights of fewer bits. They compute in the dtype of the layer that they
replace, and have gradients to their input only.

A library's layers keep the weight that they computed with until the backward pass, in full
precision: the whole model again. These make it anew, and keep nothing.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import torch
from torch.nn import functional

from services.common.memory import Quantization

_Context: TypeAlias = Any
# It complains of a missing package that only its own layers would use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
#: NF4 has one scale for so many weights.
_BLOCK = 64


class QuantizedLinear(torch.nn.Linear, ABC):
    """y = W x + b, W quantised from ``linear``, on its device.

    Only ``codes`` and ``scales`` are stored; ``codes`` are of an integer dtype, so that ``.to`` of
    a module with a dtype can't change them. Keeps the bias of ``linear`` as it is.
    """

    codes: torch.nn.Parameter
    scales: torch.nn.Parameter

    def __init__(self, linear: torch.nn.Linear) -> None:
        # Not nn.Linear's own, which would make weights.
        torch.nn.Module.__init__(self)
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        codes, scales = self._quantized(linear.weight.detach())
        self.codes = torch.nn.Parameter(codes, requires_grad=False)
        self.scales = torch.nn.Parameter(scales, requires_grad=False)
        self.bias = linear.bias
        self.train(linear.training)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """W [out, in], made at each call; for whoever asks for its shape, dtype or device."""
        return self._dequantized()

    @abstractmethod
    def _quantized(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes and scales of a weight [out, in]."""

    @abstractmethod
    def _dequantized(self) -> torch.Tensor:
        """W in the layer's dtype."""


class RowScaledLinear(QuantizedLinear):
    """Each row of W has one scale, its largest value over the largest that the code can have."""

    code: ClassVar[torch.dtype]
    largest: ClassVar[float]

    def _quantized(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Rounded to the dtype before it is used, so that its rounding is no error of the weights.
        scales = (weight.float().abs().amax(dim=1) / self.largest).to(weight.dtype)
        scales = torch.where(scales == 0, torch.ones_like(scales), scales)
        scaled = weight.float() / scales.float().unsqueeze(1)
        codes = scaled.clamp(-self.largest, self.largest)
        if not self.code.is_floating_point:
            return codes.round().to(self.code), scales
        return codes.to(self.code).view(torch.uint8), scales

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = self.codes.view(self.code)
        y: torch.Tensor = _RowScaled.apply(x, codes, self.scales, self.bias)  # type: ignore[no-untyped-call]
        return y

    def _dequantized(self) -> torch.Tensor:
        dtype = self.scales.dtype
        return self.codes.view(self.code).to(dtype) * self.scales.unsqueeze(1)


class Int8Linear(RowScaledLinear):
    code = torch.int8
    largest = 127.0


class Float8Linear(RowScaledLinear):
    """Any device converts from these numbers; none needs to compute with them."""

    code = torch.float8_e4m3fn
    largest = 448.0


class _RowScaled(torch.autograd.Function):
    """Codes are exact in bfloat16, so the scale is multiplied to the product: that is smaller than
    W."""

    @staticmethod
    def forward(
        ctx: _Context,
        x: torch.Tensor,
        codes: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(codes, scales)
        product = functional.linear(x, codes.to(x.dtype))
        if bias is None:
            return product.mul_(scales)
        return torch.addcmul(bias, product, scales)

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        codes, scales = ctx.saved_tensors
        return (gradient * scales) @ codes.to(gradient.dtype), None, None, None


class Nf4Linear(QuantizedLinear):
    """Two weights a byte, in blocks of 64 with one scale each: the 4-bit NormalFloat of QLoRA
    (Dettmers et al., 2023, arXiv 2305.14314), by bitsandbytes' kernels."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        import_kernels()
        super().__init__(linear)
        self.dtype = linear.weight.dtype

    def _quantized(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        padded = functional.pad(weight.flatten(), (0, -weight.numel() % _BLOCK)).view(-1, _BLOCK)
        codes, scales = torch.ops.bitsandbytes.quantize_4bit(padded, _BLOCK, "nf4", torch.uint8)
        # The paper's second quantisation to 8 bits would save 2.8 % more, and be less exact.
        return codes, scales.to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Nf4.apply(x, self.codes, self.scales, self.bias, self.out_features)  # type: ignore[no-untyped-call]
        return y

    def _dequantized(self) -> torch.Tensor:
        return _from_nf4(self.codes, self.scales, (self.out_features, self.in_features), self.dtype)


class _Nf4(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        x: torch.Tensor,
        codes: torch.Tensor,
        scales: torch.Tensor,
        bias: torch.Tensor | None,
        out_features: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(codes, scales)
        ctx.shape = out_features, x.shape[-1]
        return functional.linear(x, _from_nf4(codes, scales, ctx.shape, x.dtype), bias)

    @staticmethod
    def backward(
        ctx: _Context, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None, None]:
        codes, scales = ctx.saved_tensors
        weight = _from_nf4(codes, scales, ctx.shape, gradient.dtype)
        return gradient @ weight, None, None, None, None


def _from_nf4(
    codes: torch.Tensor, scales: torch.Tensor, shape: tuple[int, int], dtype: torch.dtype
) -> torch.Tensor:
    # In rows of one block: the kernel for CPUs is wrong where a block goes over the end of a row.
    blocks: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit(
        codes, scales.float(), _BLOCK, "nf4", [len(scales), _BLOCK], dtype
    )
    return blocks.flatten()[: shape[0] * shape[1]].view(shape)


def import_kernels() -> None:
    """Raises ``ImportError`` without bitsandbytes."""
    import bitsandbytes  # noqa: F401


LAYERS: Mapping[Quantization, type[QuantizedLinear]] = {
    "int8": Int8Linear,
    "float8": Float8Linear,
    "nf4": Nf4Linear,
}
