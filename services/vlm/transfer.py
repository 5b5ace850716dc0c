"""Between the host and the device without waiting for the device more often than must be.

A copy from the device, and a blocking copy to it, waits until the device has done all work that is
queued; meanwhile the host queues nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def upload(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``host`` on the device, queued behind the work before it."""
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
