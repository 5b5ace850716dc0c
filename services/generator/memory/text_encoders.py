"""Where the text encoders are: in the host's memory, and on the device only while they encode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import Embedding, Module

from services.generator.memory.forwards import instead
from services.generator.memory.host_weights import HostWeights

#: What encoding itself needs beside the weights, at most.
_WORKSPACE = 1024**3


class TextEncoders:
    """``encoders``, frozen, for a ``device`` that has a denoiser too.

    ``streamed`` says that the device never holds them whole, but one layer at a time, as it does
    anyway while it has no room; tables of embeddings are read where they are. The numbers are the
    same; each prompt costs one transfer of the weights.
    """

    def __init__(self, encoders: Sequence[Module], device: torch.device) -> None:
        self._modules = [module for encoder in encoders for module in encoder.modules()]
        self._device = device
        self._weights: HostWeights | None = None
        self.streamed = False

    @contextlib.contextmanager
    def on_device(self) -> Iterator[None]:
        """They can encode, on the device. What they were there for is freed when the block ends,
        however it ends; nothing is copied back."""
        if self._device.type == "cpu" and not self.streamed:
            self._settle()
            yield
            return
        weights = self._away()
        if self.streamed or not _has_room(self._device, weights.nbytes):
            with _streaming(weights, self._device):
                yield
            return
        try:
            weights.come()
            yield
        finally:
            weights.leave()

    def leave(self) -> None:
        """The device has none of their weights, if it has memory of its own or must do without."""
        if self._device.type != "cpu" or self.streamed:
            self._away()
        else:
            self._settle()

    def _away(self) -> HostWeights:
        if self._weights is None:
            self._weights = HostWeights(self._modules, self._device)
            for module in self._modules:
                # An embedding is looked up on the host, and so is what scales it.
                place = torch.device("cpu") if isinstance(module, Embedding) else self._device
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = buffer.to(place)
        return self._weights

    def _settle(self) -> None:
        if self._weights is not None:
            self._weights.come()
            self._weights = None


@contextlib.contextmanager
def _streaming(weights: HostWeights, device: torch.device) -> Iterator[None]:
    """Each module has its weights while it runs."""
    with contextlib.ExitStack() as stack:
        for module in weights.modules:
            place = _looked_up if isinstance(module, Embedding) else _run
            stack.enter_context(instead(module, partial(place, weights, device, module)))
        yield


def _run(
    weights: HostWeights,
    device: torch.device,  # noqa: ARG001
    module: Module,
    forward: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    with weights.here(module):
        return forward(*args, **kwargs)


def _looked_up(
    weights: HostWeights,
    device: torch.device,
    module: Module,
    forward: Callable[..., torch.Tensor],
    ids: torch.Tensor,
) -> torch.Tensor:
    with weights.on_host(module):
        return forward(ids.to("cpu")).to(device)


def _has_room(device: torch.device, nbytes: int) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return nbytes + _WORKSPACE <= free + unused
