"""Full-size networks without memory: their weights have shapes and dtypes, and no numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from types import MethodType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.initialization import no_init_weights

#: Where the counting runs. Real ids, masks and schedules stay real, so only this device can be.
HOST = torch.device("cpu")

_FAKE = FakeTensorMode(allow_non_fake_inputs=True)


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Networks made in here take no memory. What is computed with their weights is fake, too; all
    other tensors stay real."""
    with _FAKE, no_init_weights():
        yield


def weightless_like(tensor: torch.Tensor) -> torch.Tensor:
    """A fake tensor of the same shape, dtype and need of a gradient."""
    with _FAKE:
        return torch.empty_like(tensor).requires_grad_(tensor.requires_grad)


def pin(networks: Iterable[torch.nn.Module]) -> None:
    """Fake weights can't be moved; from now on ``.to`` leaves these networks where they are."""
    for network in networks:
        for module in network.modules():
            module.__dict__["to"] = MethodType(_stays, module)


def _stays(module: torch.nn.Module, *_args: Any, **_options: Any) -> torch.nn.Module:
    return module


def weights_of(*networks: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers, each storage once."""
    found = {}
    for network in networks:
        for tensor in (*network.parameters(), *network.buffers()):
            found[tensor.untyped_storage()._cdata] = tensor
    return list(found.values())


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
