"""Device and dtype of networks that are made new, with random weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def new_weights(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Networks that are made in here have weights of ``dtype`` on ``device`` from the start,
    without a float32 copy, and without one in the host's memory. On the meta device they take no
    memory at all."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
