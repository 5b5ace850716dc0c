"""Starting noise, as every diffusers pipeline draws it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def drawn(seeds: Sequence[int], shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """[seeds, *shape] on the CPU, each row from a CPU generator of its own seed.

    Drawn in ``dtype`` itself: another one draws other numbers, not the same ones rounded.
    """
    return torch.stack(
        [
            torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=dtype)
            for seed in seeds
        ]
    )
