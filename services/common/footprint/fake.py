"""Full-size networks without memory: their weights have shapes and dtypes, and no numbers."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers.initialization import no_init_weights

from services.common.quantized_linear import QuantizedLinear

#: Where the counting runs. Real ids, masks and schedules stay real, so only this device can be.
HOST = torch.device("cpu")

_FAKE = FakeTensorMode(allow_non_fake_inputs=True)


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """Networks made in here take no memory. What is computed with their weights is fake, too; all
    other tensors stay real."""
    with _FAKE, no_init_weights():
        yield


@contextlib.contextmanager
def unmoved() -> Iterator[None]:
    """Fake weights can't be moved: in here ``.to`` leaves a module that has some where it is."""
    before = torch.nn.Module.to

    def to(module: torch.nn.Module, *args: Any, **options: Any) -> torch.nn.Module:
        if any(isinstance(weight, FakeTensor) for weight in module.parameters()):
            return module
        return before(module, *args, **options)

    torch.nn.Module.to = to  # type: ignore[assignment, method-assign]
    try:
        with warnings.catch_warnings():
            # Faking a tensor in the middle of a graph looks at its .grad.
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor")
            yield
    finally:
        torch.nn.Module.to = before  # type: ignore[method-assign]


def weights_of(*networks: torch.nn.Module) -> list[torch.Tensor]:
    return [
        tensor for network in networks for tensor in (*network.parameters(), *network.buffers())
    ]


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """What they take together; memory that several share counts once."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def largest_layer(*networks: torch.nn.Module) -> int:
    """Bytes of the largest quantised layer's weight as it was before."""
    return max(
        (
            module.weight.nbytes
            for network in networks
            for module in network.modules()
            if isinstance(module, QuantizedLinear)
        ),
        default=0,
    )
