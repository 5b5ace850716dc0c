"""Where new weights are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def bfloat16_on(device: torch.device) -> Iterator[None]:
    """Networks made here have bfloat16 weights on ``device`` from the start: no float32 copy, none
    in the host's memory. On the meta device they take no memory at all."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
