"""Which tokens each token of packed rows sees, as an additive mask."""

from __future__ import annotations

import torch

from services.vlm.packing import Packed
from services.vlm.transfer import upload

#: Attention kernels that keep no scores in memory take a mask as it is if its rows begin at
#: multiples of so many items; otherwise each layer copies it.
_ALIGNMENT = 16


def is_needed(packed: Packed, window: int | None) -> bool:
    """Whether the causal mask alone would be wrong.

    What is padded stands right of a line's tokens, so they don't see it anyhow.
    """
    beyond_window = window is not None and packed.input_ids.shape[1] > window
    return beyond_window or any(tree.branches for tree in packed.trees)


def additive(
    packed: Packed,
    is_block: torch.Tensor | None,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """0 where a token (second to last dimension) sees a token (last), else -inf:
    [rows, 1, length, length]; one row if all are the same.

    ``is_block`` [rows, length] on the host: tokens that see each other in both directions, one
    block a row. ``window``: how far back a token sees, itself counted.
    """
    rows = slice(0, 1) if packed.same else slice(None)
    depths = upload(packed.depths[rows], device)
    last = upload(packed.last[rows], device)
    count, length = depths.shape
    places = torch.arange(length, device=device)
    seen = (places <= places[:, None]) & (places[:, None] <= last[:, None, :])
    if is_block is not None:
        block = upload(is_block[rows], device)
        seen |= block[:, None, :] & block[:, :, None]
    if window is not None:
        seen &= depths[:, None, :] > depths[:, :, None] - window
    width = -(-length // _ALIGNMENT) * _ALIGNMENT
    mask = torch.full((count, 1, length, width), -torch.inf, dtype=dtype, device=device)
    return mask[..., :length].masked_fill_(seen[:, None], 0.0)
