"""What a device has left."""

from __future__ import annotations

import torch


def free_bytes(device: torch.device) -> int | None:
    """Bytes of the device's memory that torch can still have; ``None`` for a CPU, whose memory the
    system shares out."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0]
