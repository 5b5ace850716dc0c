"""Modules whose forward pass runs again in the backward pass, instead of keeping what it made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def recompute(modules: Iterable[torch.nn.Module]) -> None:
    """From now on each module keeps only its inputs for the backward pass. Outputs and gradients
    are the same bits; without gradients nothing runs twice. A module inside another of them is to
    be left out. What the module reads besides its inputs must be as it was when the backward pass
    runs it again: the active LoRA."""
    for module in modules:
        if not isinstance(module.__dict__.get("forward"), _Recomputed):
            module.__dict__["forward"] = _Recomputed(module.forward)


def keep(modules: Iterable[torch.nn.Module]) -> None:
    """Undoes ``recompute``."""
    for module in modules:
        if isinstance(module.__dict__.get("forward"), _Recomputed):
            del module.__dict__["forward"]


class _Recomputed:
    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        # Frozen models in evaluation mode draw nothing, so there is no generator to restore.
        return checkpoint(
            self._forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs
        )
