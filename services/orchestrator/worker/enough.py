"""Decides when a job has learned enough to end before its last step."""

from __future__ import annotations

from collections.abc import Sequence

from dualprocess.schemas import AnyStepEvent, ResolvedJobSpec, StepEvent

#: This many steps in a row, since a single step's noise may be a lucky one.
_STEPS = 3


def enough(spec: ResolvedJobSpec, steps: Sequence[AnyStepEvent]) -> str | None:
    """Why the job may end after these steps, if it may.

    A step reports the probabilities (VQAScore, the geometric mean over an answer's tokens) of
    images that were made before it learned from them, on noise of its own: they are not the images
    that the LoRA was fitted to.
    """
    wanted = spec.stop_at_score
    last = [step for step in steps[-_STEPS:] if isinstance(step, StepEvent)]
    if wanted is None or len(last) < _STEPS:
        return None
    if any(
        question.probability.geometric_mean < wanted for step in last for question in step.questions
    ):
        return None
    return (
        f"every right answer had a probability of {wanted:g} or more in steps {last[0].step} to "
        f"{last[-1].step} (stop_at_score)"
    )
