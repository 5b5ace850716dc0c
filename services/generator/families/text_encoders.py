"""Text encoders need the device while they encode, and only then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch


@contextlib.contextmanager
def on_device(encoders: Sequence[torch.nn.Module], device: torch.device) -> Iterator[None]:
    """Lends the device to the encoders; afterwards they are back in the host's memory."""
    for encoder in encoders:
        encoder.to(device)
    try:
        yield
    finally:
        for encoder in encoders:
            encoder.to("cpu")
