"""What `?dry_run=true` answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from dualprocess.schemas.base_scores import BaseScore
from dualprocess.schemas.fields import Model
from dualprocess.schemas.jobs import ResolvedSpec
from dualprocess.schemas.problems import Problem
from dualprocess.schemas.work import WorkPart, WorkUnits


class QueueAhead(Model):
    """One of the queues that a request's jobs would wait in, as it is now."""

    generator: Annotated[str, Field(description="Empty for jobs that need none.")]
    vlms: Annotated[list[str], Field(description="The VLMs that a job of this queue needs.")]
    waiting: Annotated[int, Field(description="Jobs in it that would come before the new ones.")]
    running: Annotated[int, Field(description="Jobs from it that run now.")]
    workers: Annotated[
        int, Field(description="Live workers that can take its jobs; with none they wait for one.")
    ]


class TimeEstimate(Model):
    """How long the jobs of a request run, as far as earlier jobs of the same generator with the
    same teachers tell."""

    seconds: Annotated[
        float | None,
        Field(
            description="For all its jobs one after the other, if each makes all its steps; the "
            "wait in the queue is not part of it. Null: nothing was measured yet."
        ),
    ] = None
    step_seconds: Annotated[
        float | None, Field(description="For one optimiser step; null if the jobs differ.")
    ] = None
    basis: Annotated[
        str, Field(description="What it was measured on, or why it is not known, as a sentence.")
    ]

    @classmethod
    def together(cls, several: Sequence[TimeEstimate]) -> TimeEstimate:
        """For jobs that run one after the other."""
        seconds = [one.seconds for one in several if one.seconds is not None]
        steps = {one.step_seconds for one in several}
        return cls(
            seconds=sum(seconds) if len(seconds) == len(several) else None,
            step_seconds=steps.pop() if len(steps) == 1 else None,
            basis=" ".join(dict.fromkeys(one.basis for one in several)),
        )


class DryRun(Model):
    """What a request would come to. It was checked like a real one, and nothing was queued."""

    jobs: Annotated[int, Field(description="How many jobs it would make.")]
    work: WorkUnits
    parts: Annotated[
        dict[WorkPart, WorkUnits], Field(description="The work of each part; their sum is `work`.")
    ]
    quota: Annotated[
        int | None,
        Field(description="Work that the key's unfinished jobs may have together; null: no limit."),
    ] = None
    left: Annotated[
        float | None,
        Field(description="What is left of the quota now; a request with more gets a 429 for now."),
    ] = None
    refused: Annotated[
        Problem | None,
        Field(description="How the real request would be refused now, since a quota is used up."),
    ] = None
    warnings: Annotated[
        list[str],
        Field(
            description="The `warnings` that the job would have from the start, as about a prompt "
            "that the generator does not read to its end."
        ),
    ] = []
    spec: Annotated[
        ResolvedSpec | None,
        Field(description="The spec with every default filled in; null for several jobs."),
    ] = None
    queues: Annotated[
        list[QueueAhead], Field(description="The queues that its jobs would wait in.")
    ] = []
    time: Annotated[
        TimeEstimate | None,
        Field(description="How long its jobs run; null for a request that teaches nothing."),
    ] = None
    base: Annotated[
        BaseScore | None, Field(description="The `base` that the job would have from the start.")
    ] = None
