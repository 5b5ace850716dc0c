"""Adapters on a denoiser's layers: attach, fill, switch off, take off.

Several jobs share one frozen denoiser. Only active adapters take part in its forward pass: whoever
runs the denoiser activates the LoRA first.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from services.common.errors import InvalidInput


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
        if ".lora_" not in name and not isinstance(module, LoraLayer)
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


def attach(denoiser: Any, name: str, config: LoraConfig) -> dict[str, LoraLayer]:
    """Adds an inactive adapter, in float32 whatever the base's dtype is: in bfloat16 most updates
    at usual learning rates are rounded away. Returns the adapted layers by their names in the
    denoiser."""
    try:
        with _several_adapters():
            denoiser.add_adapter(config, name)
    except BaseException:
        detach(denoiser, name)
        raise
    silence(denoiser)
    layers = {
        module_name: module
        for module_name, module in denoiser.named_modules()
        if isinstance(module, LoraLayer) and name in module.lora_A
    }
    for layer in layers.values():
        layer.lora_A[name].to(torch.float32)
        layer.lora_B[name].to(torch.float32)
    return layers


def detach(denoiser: Any, name: str) -> None:
    """Takes the adapter off, even if it is on some layers only."""
    denoiser.delete_adapters(name)
    if not hasattr(denoiser, "peft_config"):
        # diffusers reports adapters even before the first one is added.
        denoiser._hf_peft_config_loaded = False
    silence(denoiser)


def silence(denoiser: torch.nn.Module) -> None:
    """No adapter takes part in the forward pass."""
    for module in denoiser.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([])


def fill(layer: LoraLayer, name: str, lora: Lora, module: str, *, scale: float = 1.0) -> None:
    """Writes the LoRA, its B divided by ``scale``, into the adapter's first rows of A and columns
    of B. Raises ``InvalidInput`` where it doesn't fit ``module``."""
    weights = layer.lora_A[name].weight, layer.lora_B[name].weight
    A, B = (_as_layer(matrix, weight) for matrix, weight in zip(lora, weights, strict=True))
    # Only the rank may differ, by being smaller.
    fits = A.shape[1:] == weights[0].shape[1:] and (
        (B.shape[0], *B.shape[2:]) == (weights[1].shape[0], *weights[1].shape[2:])
    )
    if not fits:
        raise InvalidInput(
            f"its matrices of {module}, {list(lora.A.shape)} and {list(lora.B.shape)}, don't fit "
            "that layer of this model; send a LoRA that was trained on this model"
        )
    with torch.no_grad():
        weights[0][: lora.rank].copy_(A)
        weights[1][:, : lora.rank].copy_(B / scale)


def _as_layer(matrix: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear layer and a convolution of 1 × 1 are the same; files may have either."""
    if matrix.ndim > weight.ndim:
        return matrix.reshape(matrix.shape[:2]) if matrix.shape[2:].numel() == 1 else matrix
    return matrix.reshape(*matrix.shape, *[1] * (weight.ndim - matrix.ndim))


@contextlib.contextmanager
def _several_adapters() -> Iterator[None]:
    """A denoiser may get several adapters, so peft's warning about that is not needed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        yield
