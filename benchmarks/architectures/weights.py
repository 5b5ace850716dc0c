"""The device and dtype of new weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def bfloat16_on(device: torch.device) -> Iterator[None]:
    """Networks that are made inside this context have bfloat16 weights on ``device`` from the
    start, without a float32 copy, and without one in the host's memory. On the meta device they
    take no memory at all."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
