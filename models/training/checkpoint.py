"""Training state on disk. It is replaced atomically, so a run can be stopped at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

RUNS = Path(__file__).parent / "runs"


def save(name: str, state: dict[str, Any]) -> None:
    """Writes `state` as runs/<name>.pt."""
    RUNS.mkdir(exist_ok=True)
    partial = RUNS / f"{name}.pt.partial"
    torch.save(state, partial)
    partial.replace(RUNS / f"{name}.pt")


def load(name: str) -> dict[str, Any] | None:
    """The last state saved under `name`, or None."""
    path = RUNS / f"{name}.pt"
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
