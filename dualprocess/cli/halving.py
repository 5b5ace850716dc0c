"""``batch --halve``: of jobs that teach the same, the worse half ends early, again and again
(successive halving).

With n jobs there are log2(n) rungs, at … 1/8, 1/4 and 1/2 of a job's steps. At the first the better
half goes on, at the next the better half of that, down to one job. While a job runs only its
teachers have scored it, so the measure is theirs: the mean probability of the right answers over
the last steps before the rung, as the job's step events tell it.

Jobs run when the service has a place for them, perhaps one after the other. So a job is ended at a
rung as soon as as many others as may go on there were better at it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.progress import Progress, TaskID

from dualprocess import printable
from dualprocess.cli import watching
from dualprocess.cli.lessons import compared
from dualprocess.cli.outcomes import Outcome
from dualprocess.cli.session import stderr
from dualprocess.client import Client
from dualprocess.schemas import Job, SkippedStepEvent, StepEvent

#: The probability of one step varies a lot.
WINDOW = 10
_PAUSE_SECONDS = 1.0
#: The most jobs that are read in a second.
_A_SECOND = 20


@dataclass
class Race:
    """Jobs that teach the same. ``scores`` are their measures at each rung, by the job's id."""

    size: int
    scores: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scores = [{} for _ in range(int(math.log2(self.size)))]

    def step(self, rung: int, steps: int) -> int:
        """The step of a job with so many ``steps`` at which a rung lies."""
        return max(1, steps >> (len(self.scores) - rung))

    def kept(self, rung: int) -> int:
        """How many go on after a rung."""
        return math.ceil(self.size / (2 << rung))

    def beaten(self, job_id: str) -> tuple[int, int] | None:
        """The rung at which too many are better than the job, and how many; ``None`` if it may go
        on."""
        for rung, scores in enumerate(self.scores):
            if (own := scores.get(job_id)) is not None:
                better = sum(other > own for other in scores.values())
                if better >= self.kept(rung):
                    return rung, better
        return None


def watch(client: Client, found: Sequence[Outcome]) -> None:
    """Returns when all jobs have ended, or were ended."""
    races = [(Race(len(group)), group) for group in compared(found)]
    with Progress(*watching.columns(), console=stderr) as progress:
        bar = progress.add_task("jobs", total=len(found), measures="", state="")
        tasks: dict[str, TaskID] = {}
        while True:
            open_jobs = [_followed(client, race, group) for race, group in races]
            running = [job for jobs in open_jobs for job in jobs]
            _show(progress, tasks, running)
            progress.update(bar, completed=len(found) - len(running))
            if not running:
                return
            # Each is read each time.
            time.sleep(_PAUSE_SECONDS * max(1, len(running) / _A_SECOND))


def _followed(client: Client, race: Race, group: Sequence[Outcome]) -> list[Job]:
    """Reads the group's jobs, and ends those that are beaten. Returns those that have not ended."""
    for outcome in group:
        if outcome.job is None:
            continue
        if not outcome.job.status.is_final:
            outcome.record(client.job(outcome.job.id))
        _measure(client, race, outcome.job)
    for outcome in group:
        if outcome.job is None or outcome.job.status.is_final or outcome.ended_early:
            continue
        if (lost := race.beaten(outcome.job.id)) is not None:
            rung, better = lost
            step = race.step(rung, outcome.job.steps)
            outcome.ended_early = (
                f"ended early by --halve: at step {step} the right answers were "
                f"{race.scores[rung][outcome.job.id]:.3f} probable, and {better} of "
                f"{race.size} jobs were better"
            )
            outcome.record(client.cancel(outcome.job.id))
    return [one.job for one in group if one.job is not None and not one.job.status.is_final]


def _measure(client: Client, race: Race, job: Job) -> None:
    """Adds the job's measures at the rungs that it has reached since."""
    reached = [
        (rung, scores)
        for rung, scores in enumerate(race.scores)
        if job.id not in scores and _at(race, rung, job)
    ]
    if not reached:
        return
    probabilities = dict(_probabilities(client, job))
    for rung, scores in reached:
        step = race.step(rung, job.steps)
        last = [value for at, value in probabilities.items() if step - WINDOW < at <= step]
        # A job that had learned enough before this rung stays as good as it was at its end.
        last = last or list(probabilities.values())[-WINDOW:]
        if last:
            scores[job.id] = sum(last) / len(last)


def _at(race: Race, rung: int, job: Job) -> bool:
    """Whether the job has a measure at this rung: it has come so far, or has learned enough."""
    return job.steps > 0 and (
        job.step >= race.step(rung, job.steps) or job.stopped_because is not None
    )


def _probabilities(client: Client, job: Job) -> Iterator[tuple[int, float]]:
    """The steps that the job has made, each with the probability of the right answers."""
    for record in client.events(job.id):
        event = record.event
        if isinstance(event, StepEvent):
            yield event.step, event.probability.geometric_mean
        if isinstance(event, StepEvent | SkippedStepEvent) and event.step >= job.step:
            return


def _show(progress: Progress, tasks: dict[str, TaskID], running: Sequence[Job]) -> None:
    """A bar for each running job."""
    here = {job.id for job in running}
    for job_id in [one for one in tasks if one not in here]:
        progress.remove_task(tasks.pop(job_id))
    for job in running:
        if job.id not in tasks:
            name = printable.line(job.name or job.id)
            tasks[job.id] = progress.add_task(name, total=job.steps, measures="", state="")
        measures = (
            "" if job.probability is None else (f"probability {job.probability.geometric_mean:.3f}")
        )
        progress.update(tasks[job.id], completed=job.step, measures=measures, state=str(job.status))
