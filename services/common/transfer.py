"""Between the host and the device without waiting for the device more often than must be.

A copy from the device, and a blocking copy to it, waits until the device has done all work that is
queued; meanwhile the host queues nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch


class Kept:
    """What work uploads that comes again: on the device once, in the order of the uploads.

    Work whose uploads have other values or another order needs another one.
    """

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []
        self._next = 0

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """``upload`` takes from here what an earlier run of the work has put here."""
        self._next = 0
        token = _kept.set(self)
        try:
            yield
        finally:
            _kept.reset(token)

    def take(self, host: torch.Tensor, device: torch.device) -> torch.Tensor:
        if self._next == len(self._tensors):
            self._tensors.append(host.to(device))
        self._next += 1
        return self._tensors[self._next - 1]


_kept: ContextVar[Kept | None] = ContextVar("kept", default=None)


def upload(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``host`` on the device, queued behind the work before it. The result is not to be changed."""
    kept = _kept.get()
    return _queued(host, device) if kept is None else kept.take(host, device)


def _queued(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    if device.type == "cuda" and host.device.type == "cpu":
        # From other memory a large copy would have to wait for its turn.
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def fetch(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """All tensors on the host, detached, after one wait. They lie on one device."""
    # Every part begins at a multiple of its item size.
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
    flat = [tensors[i].detach().contiguous().view(-1).view(torch.uint8) for i in order]
    together = torch.cat(flat)
    if together.device.type == "cuda":
        # Page-locked memory takes a copy at full speed.
        host = torch.empty(together.shape, dtype=torch.uint8, pin_memory=True).copy_(together)
    else:
        host = together.to("cpu")
    fetched = list(tensors)
    for i, part in zip(order, torch.split(host, [len(one) for one in flat]), strict=True):
        fetched[i] = part.view(tensors[i].dtype).view(tensors[i].shape)
    return fetched
