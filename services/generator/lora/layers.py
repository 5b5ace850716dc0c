"""The layers of a denoiser that a LoRA can change, and a file's matrices in them."""

from __future__ import annotations

from typing import NamedTuple

import torch

from services.common.errors import InvalidInput
from services.generator.adapters.adapted import Adapted
from services.generator.adapters.low_rank import LowRank


class Lora(NamedTuple):
    """The LoRA of one module, y = B(A(x)): A [rank, in, …] and B [out, rank, …], float32, on the
    CPU."""

    A: torch.Tensor
    B: torch.Tensor

    @property
    def rank(self) -> int:
        return len(self.A)


def base_modules(denoiser: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The denoiser's own modules by name, whatever adapters are on it."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in denoiser.named_modules()
        if not isinstance(module, Adapted)
    }


def can_be_adapted(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | torch.nn.Conv2d)


def in_groups(module: torch.nn.Module) -> bool:
    """Whether this is a convolution for which diffusers can't load a LoRA."""
    return getattr(module, "groups", 1) > 1


def adaptable(denoiser: torch.nn.Module) -> list[str]:
    """Names of the modules that a LoRA file may change."""
    return [
        name
        for name, module in base_modules(denoiser).items()
        if can_be_adapted(module) and not in_groups(module)
    ]


def fill(weights: LowRank, lora: Lora, module: str, *, scale: float = 1.0) -> None:
    """Writes the LoRA, its B divided by ``scale``, into the first rows of A and columns of B.
    Raises ``InvalidInput`` where it doesn't fit ``module``."""
    halves = weights.A, weights.B
    A, B = (_as_layer(matrix, weight) for matrix, weight in zip(lora, halves, strict=True))
    # Only the rank may differ, by being smaller.
    fits = A.shape[1:] == weights.A.shape[1:] and (
        (B.shape[0], *B.shape[2:]) == (weights.B.shape[0], *weights.B.shape[2:])
    )
    if not fits:
        raise InvalidInput(
            f"its matrices of {module}, {list(lora.A.shape)} and {list(lora.B.shape)}, don't fit "
            "that layer of this model; send a LoRA that was trained on this model"
        )
    with torch.no_grad():
        weights.A[: lora.rank].copy_(A)
        weights.B[:, : lora.rank].copy_(B / scale)


def _as_layer(matrix: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear layer and a convolution of 1 × 1 are the same; files may have either."""
    if matrix.ndim > weight.ndim:
        return matrix.reshape(matrix.shape[:2]) if matrix.shape[2:].numel() == 1 else matrix
    return matrix.reshape(*matrix.shape, *[1] * (weight.ndim - matrix.ndim))
