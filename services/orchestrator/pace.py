"""How fast jobs learn: what an ended job tells, and what that says about a new one.

A job's time has two parts: its steps, and the rest, which is pictures, scores and prompts. Each is
measured against the work that was counted for it, so that a measured job says something about one
of another size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from dualprocess.schemas import ResolvedJobSpec, TimeEstimate, WorkPart
from services.orchestrator.work import Work

#: How many sizes of one pair are remembered.
KEPT = 8
#: A mean over about so many of the newest jobs.
_JOBS = 8
_STEP_PARTS = (WorkPart.TRAINING, WorkPart.TEACHING)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Size(BaseModel):
    """What decides how long a step of one generator with the same teachers takes."""

    model_config = ConfigDict(frozen=True)

    width: int
    height: int
    num_inference_steps: int
    batch: int
    accumulate: int
    questions: int
    anchor: bool
    worst_case: bool

    def __str__(self) -> str:
        drawings = self.batch * self.accumulate
        told = [
            f"{self.width} × {self.height}",
            f"{drawings} image{'' if drawings == 1 else 's'} a step",
            f"{self.questions} question{'' if self.questions == 1 else 's'}",
        ]
        told += ["anchor"] if self.anchor else []
        told += ["worst case"] if self.worst_case else []
        return ", ".join(told)


class Measured(BaseModel):
    """What ended jobs of one size took. Work is in pixels times passes, as ``Work`` has it."""

    model_config = ConfigDict(frozen=True)

    size: Size
    step_seconds: Positive
    step_work: Positive
    rest_seconds: Seconds
    rest_work: Positive
    jobs: Annotated[int, Field(ge=1)] = 1
    at: datetime

    def after(self, newer: Measured) -> Measured:
        """Both together; the newest jobs count most."""
        jobs = self.jobs + 1
        share = 1 / min(jobs, _JOBS)
        step = self.step_seconds * newer.step_work / self.step_work
        rest = self.rest_seconds * newer.rest_work / self.rest_work
        return newer.model_copy(
            update={
                "step_seconds": step + share * (newer.step_seconds - step),
                "rest_seconds": rest + share * (newer.rest_seconds - rest),
                "jobs": jobs,
            }
        )


def size_of(spec: ResolvedJobSpec) -> Size:
    return Size(
        width=spec.image.width,
        height=spec.image.height,
        num_inference_steps=spec.image.num_inference_steps,
        batch=spec.optimizer.batch,
        accumulate=spec.optimizer.accumulate,
        questions=len(spec.questions),
        anchor=spec.guard.anchor > 0,
        worst_case=spec.guard.worst_case > 0,
    )


def measured(
    spec: ResolvedJobSpec,
    parts: Mapping[WorkPart, int],
    steps: Sequence[float],
    seconds: float,
) -> Measured | None:
    """What one run of a job tells. ``steps`` has the seconds of each step that it made, ``seconds``
    is the whole run without its waits. ``None`` if it tells nothing.

    The median step counts: what only the first one has, like a model that warms up, is of the rest.
    """
    step = sorted(steps)[len(steps) // 2] if steps else 0.0
    made = len(steps) / spec.optimizer.steps
    rest = sum(parts.values()) - _step_work(parts) - parts[WorkPart.PREVIEWS] * (1 - made)
    if step <= 0 or rest <= 0:
        return None
    return Measured(
        size=size_of(spec),
        step_seconds=step,
        step_work=_step_work(parts) / spec.optimizer.steps,
        rest_seconds=max(seconds - step * len(steps), 0.0),
        rest_work=rest,
        at=datetime.now(UTC),
    )


def together(known: Sequence[Measured], newer: Measured) -> list[Measured]:
    """The sizes to remember, the newest first."""
    before = next((one for one in known if one.size == newer.size), None)
    others = [one for one in known if one.size != newer.size]
    return [before.after(newer) if before else newer, *others][:KEPT]


def estimate(spec: ResolvedJobSpec, work: Work, known: Sequence[Measured]) -> TimeEstimate:
    """How long the job runs if it makes all its steps."""
    pair = f"{spec.generator} with {' and '.join(sorted(use.name for use in spec.vlm))}"
    if not known:
        basis = f"No job of {pair} has ended here yet, so how long it takes is not known."
        return TimeEstimate(basis=basis)
    size = size_of(spec)
    step_work = _step_work(work.parts) / spec.optimizer.steps
    rest_work = sum(work.parts.values()) - _step_work(work.parts)
    nearest = min(
        known,
        key=lambda one: (one.size != size, abs(math.log(one.step_work / step_work))),
    )
    step = nearest.step_seconds * step_work / nearest.step_work
    rest = nearest.rest_seconds * rest_work / nearest.rest_work
    jobs = f"{nearest.jobs:,} job{'' if nearest.jobs == 1 else 's'} of {pair}"
    ended = f"the last of which ended at {nearest.at:%Y-%m-%d %H:%M} UTC"
    basis = (
        f"Measured on {jobs} of the same size, {ended}."
        if nearest.size == size
        else f"Scaled by the work of a step from {jobs} of another size ({nearest.size}), {ended}."
    )
    return TimeEstimate(seconds=step * spec.optimizer.steps + rest, step_seconds=step, basis=basis)


def _step_work(parts: Mapping[WorkPart, int]) -> int:
    return sum(parts[part] for part in _STEP_PARTS)
