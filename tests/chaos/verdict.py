"""Whether every promise was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dualprocess.schemas import JobStatus
from services.orchestrator.store import redis as keys
from tests.chaos.faults import Fault
from tests.chaos.jobs import Outcome, Submitted, key, outcome
from tests.chaos.replicas import Replicas
from tests.chaos.streams import Told, told


@dataclass
class Verdict:
    """``broken`` has a sentence for each broken promise; the counts are by promise."""

    wanted: int
    acknowledged: int
    finished: int = 0
    attempts_ended: int = 0
    resumed: int = 0
    listened: int = 0
    heard: int = 0
    lost: int = 0
    differing: int = 0
    finished_again: int = 0
    missed: int = 0
    twice: int = 0
    told_twice: int = 0
    mistakes: int = 0
    broken: list[str] = field(default_factory=list)
    faults: Counter[Fault] = field(default_factory=Counter)
    seconds: float = 0.0


async def judge(
    wanted: int,
    submitted: Sequence[Submitted],
    references: Mapping[str, Outcome],
    api: Replicas,
    redis: keys.Client,
) -> Verdict:
    """Checks every acknowledged job, after the last fault."""
    verdict = Verdict(wanted, len(submitted), mistakes=len(api.mistakes), broken=[*api.mistakes])
    if wanted != len(submitted):
        verdict.broken.append(f"{wanted - len(submitted)} jobs were never acknowledged")
    for job in submitted:
        _judge_stream(job, await told(redis, job.id), verdict)
        if job.ended is None or job.ended.status != JobStatus.SUCCEEDED:
            verdict.lost += 1
            verdict.broken.append(f"job {job.id} is lost: {_end(job)}")
            continue
        verdict.finished += 1
        verdict.attempts_ended += len(job.ended.causes)
        if differing := (await outcome(api, job)).differs(references[key(job.spec)]):
            verdict.differing += 1
            verdict.broken.append(f"job {job.id} differs in {', '.join(differing)}")
    return verdict


def _judge_stream(job: Submitted, stream: Told, verdict: Verdict) -> None:
    again = max(stream.ends - 1, 0)
    verdict.finished_again += again
    verdict.resumed += stream.resumed
    verdict.told_twice += len(stream.repeated)
    if again:
        verdict.broken.append(f"job {job.id} finished {stream.ends} times")
    verdict.broken += [f"job {job.id} told twice: {text}" for text in stream.repeated]
    if job.heard is None:
        return
    verdict.listened += 1
    verdict.heard += len(job.heard)
    missed = len(set(stream.ids) - set(job.heard))
    twice = len(job.heard) - len(set(job.heard))
    verdict.missed += missed
    verdict.twice += twice
    if missed or twice or job.heard != sorted(job.heard, key=stream.place):
        verdict.broken.append(f"job {job.id}: its listener missed {missed}, heard {twice} twice")


def _end(job: Submitted) -> str:
    return "it has not ended, or is gone" if job.ended is None else f"{job.ended.error}"
