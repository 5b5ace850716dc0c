"""What a job should be told of its results, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from dualprocess.schemas import ResolvedJobSpec, Scores

#: Below this the LoRA has made images of different seeds alike.
LEAST_DIVERSITY = 0.7


def advice(spec: ResolvedJobSpec, scores: Scores) -> Iterator[str]:
    """A sentence or two for each thing that looks wrong."""
    diversity = scores.diversity
    if diversity is not None and diversity < LEAST_DIVERSITY:
        yield (
            "Images of different seeds have become alike: their diversity is "
            f"{diversity:.2f} of the base model's. Unless the questions ask for one look, the LoRA "
            f"remade more than it was asked to. {_remedy(spec)}"
        )


def _remedy(spec: ResolvedJobSpec) -> str:
    guard = spec.guard
    if guard.anchor == 0:
        return "Set guard.anchor (begin with 0.2) and guard.margin (0.95)."
    raised = f"Raise guard.anchor (now {guard.anchor:g}) to {2 * guard.anchor:g}"
    if guard.margin == 1:
        return f"{raised}, and set guard.margin (0.95)."
    return f"{raised}, or make optimizer.lr smaller (now {spec.optimizer.lr:g})."
