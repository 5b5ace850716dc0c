"""Warnings about a job's results, with what to do about them."""

from __future__ import annotations

from collections.abc import Iterator

from dualprocess.schemas import ResolvedJobSpec, Scores
from services.common.presets import GUARD

#: Below this the LoRA has made images of different seeds alike.
LEAST_DIVERSITY = 0.7
#: The most that a request takes.
_MOST_ANCHOR = 1000


def advice(spec: ResolvedJobSpec, scores: Scores) -> Iterator[str]:
    """A sentence or two for each thing that looks wrong."""
    diversity = scores.diversity
    # Rounded as it is shown.
    if diversity is not None and round(diversity, 2) < LEAST_DIVERSITY:
        yield (
            f"Images of different seeds have become alike: their diversity is {diversity:.2f} of "
            "the base model's. Unless the questions ask for one look, the LoRA changed more than "
            f"it was asked to. {_remedy(spec)}"
        )


def _remedy(spec: ResolvedJobSpec) -> str:
    guard = spec.guard
    margin = _margin(spec)
    if guard.anchor == 0:
        setting = f"Set guard.anchor (begin with {GUARD.anchor:g})"
        return f"{setting} and guard.margin ({margin:g})." if margin else f"{setting}."
    slower = f"make optimizer.lr smaller (now {spec.optimizer.lr:g})"
    if 2 * guard.anchor > _MOST_ANCHOR:
        return f"{slower[0].upper()}{slower[1:]}."
    raised = f"Raise guard.anchor (now {guard.anchor:g}) to {2 * guard.anchor:g}"
    return f"{raised}, and set guard.margin ({margin:g})." if margin else f"{raised}, or {slower}."


def _margin(spec: ResolvedJobSpec) -> float | None:
    """One to begin with, that ``stop_at_score`` leaves room for; ``None`` where there is one, or
    none can be."""
    margin = max(GUARD.margin, (1 + (spec.stop_at_score or 0)) / 2)
    return margin if spec.guard.margin == 1 and margin < 1 else None
