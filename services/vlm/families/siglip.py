"""The SigLIP towers of Idefics2 and SmolVLM, for whole images.

Their own ``forward`` reads a mask of patches on the host, to see that none is padded, and takes an
image of one grey for padding.
"""

from __future__ import annotations

from typing import Any

import torch


def hidden_states(tower: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """[batch, patches, width] of ``pixel_values`` [batch, 3, height, width]."""
    patch = tower.config.patch_size
    batch, _, height, width = pixel_values.shape
    every_patch = torch.ones(
        (batch, height // patch, width // patch), dtype=torch.bool, device=pixel_values.device
    )
    embedded = tower.embeddings(pixel_values=pixel_values, patch_attention_mask=every_patch)
    encoded = tower.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state
    normed: torch.Tensor = tower.post_layernorm(encoded)
    return normed
