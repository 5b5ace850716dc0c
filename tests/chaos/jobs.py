"""Submits and watches the jobs that must survive, and reads their results."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from dualprocess import JobSpec, NotFound, Question
from dualprocess.schemas import EvalOptions, Job, JobStatus, OptimizerOptions
from tests.chaos.replicas import Replicas
from tests.chaos.stack import GENERATOR, VLM

_POLL_SECONDS = 1.0
_STEPS = (6, 9, 12)
_SEEDS = (1, 2)
#: A listener follows each second job.
_LISTENED = 2


@dataclass
class Submitted:
    """An acknowledged job; ``heard`` are the ids of its events, if somebody listened."""

    id: str
    spec: JobSpec
    heard: list[str] | None = None
    ended: Job | None = None


@dataclass(frozen=True)
class Outcome:
    """The results of a job: each file, and its scores."""

    status: JobStatus
    scores: str
    files: dict[str, bytes] = field(repr=False)

    def differs(self, other: Outcome) -> list[str]:
        """The names of the results that differ."""
        names = sorted(self.files.keys() | other.files.keys())
        differing = [name for name in names if self.files.get(name) != other.files.get(name)]
        if self.status != other.status:
            differing.append(f"status {self.status}")
        return differing + (["scores"] if self.scores != other.scores else [])


def specs(count: int, *, different: int) -> list[JobSpec]:
    """``count`` short jobs, ``different`` of which differ, at most six."""
    distinct = [
        JobSpec(
            prompt="a circle",
            questions=[Question(question="Is the circle red?", answer="Yes")],
            generator=GENERATOR,
            vlm=VLM,
            optimizer=OptimizerOptions(steps=steps, seed=seed, batch=2, checkpoint_every=2),
            eval=EvalOptions(images=2, every=4),
        )
        for seed, steps in itertools.product(_SEEDS, _STEPS)
    ][:different]
    return [distinct[index % len(distinct)] for index in range(count)]


def key(spec: JobSpec) -> str:
    """A key that is the same for equal specs."""
    return spec.model_dump_json()


async def references(api: Replicas, wanted: Sequence[JobSpec]) -> dict[str, Outcome]:
    """The result of each spec when nothing disturbs it."""
    found = {}
    for spec in {key(spec): spec for spec in wanted}.values():
        job = await submit(api, spec, 0)
        await wait(api, job, 0)
        found[key(spec)] = await outcome(api, job)
        if found[key(spec)].status != JobStatus.SUCCEEDED:
            raise RuntimeError(f"a job fails without any chaos: {job.ended}")
    return found


async def submit_all(
    api: Replicas, wanted: Sequence[JobSpec], submitted: list[Submitted], *, gap: float
) -> None:
    """Submits a job every ``gap`` seconds, to each replica in turn, and returns when all have
    ended. ``submitted`` has each from its acknowledgement on."""
    async with asyncio.TaskGroup() as watches:
        for index, spec in enumerate(wanted):
            job = await submit(api, spec, index)
            submitted.append(job)
            watches.create_task(wait(api, job, index))
            if index % _LISTENED == 0:
                watches.create_task(listen(api, job, index))
            await asyncio.sleep(gap)


async def submit(api: Replicas, spec: JobSpec, first: int) -> Submitted:
    """Returns when a replica has acknowledged it."""
    # One key for all tries, since a first answer may have been lost.
    once = secrets.token_hex(16)
    job = await api.ask(lambda client: client.submit(spec, idempotency_key=once), first)
    return Submitted(job.id, spec)


async def wait(api: Replicas, job: Submitted, first: int) -> None:
    """Waits until the job has ended, or nobody knows it."""
    for turn in itertools.count(first):
        try:
            found = await api.ask(lambda client: client.job(job.id), turn)
        except NotFound:
            return
        if found.status.is_final:
            job.ended = found
            return
        await asyncio.sleep(_POLL_SECONDS)


async def listen(api: Replicas, job: Submitted, first: int) -> None:
    """Hears every event of the job."""
    job.heard = []
    # A job that is gone is counted elsewhere, as lost.
    with contextlib.suppress(NotFound):
        async for record in api.events(job.id, first):
            job.heard.append(record.id)


async def outcome(api: Replicas, job: Submitted) -> Outcome:
    """Of a job that has ended."""
    assert job.ended is not None
    names = [artifact.name for artifact in job.ended.artifacts]
    files = {}
    for name in names:
        with contextlib.suppress(NotFound):
            files[name] = await _read(api, job.id, name)
    scores = json.dumps(job.ended.scores.model_dump(mode="json"), sort_keys=True)
    return Outcome(job.ended.status, scores, files)


async def _read(api: Replicas, job_id: str, name: str) -> bytes:
    return await api.ask(lambda client: client.read_artifact(job_id, name), 0)
