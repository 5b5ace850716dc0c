"""A tensor's way from the host to a device, without a wait for what the device still does."""

from __future__ import annotations

import torch


def to_device(host: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The CPU tensor ``host`` on ``device``. A copy to a GPU is queued behind its other work; a
    copy from usual memory would first wait for that work."""
    if device.type != "cuda":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)
