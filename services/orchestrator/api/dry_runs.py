"""``?dry_run=true``: checks a request, answers with what it comes to, and queues nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import JSONResponse

from dualprocess.schemas import (
    BaseScore,
    DryRun,
    JobStatus,
    Problem,
    QueueAhead,
    ResolvedJobSpec,
    ResolvedSpec,
    TimeEstimate,
)
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.problems import over
from services.orchestrator.api.quotas import work_is_used_up
from services.orchestrator.api.state import State
from services.orchestrator.pace import Measured, estimate
from services.orchestrator.store import redis as keys
from services.orchestrator.store.quotas import QuotaExceeded, WorkExceeded
from services.orchestrator.work import MEGAPIXEL, Work

IsDry = Annotated[
    bool,
    Query(
        alias="dry_run",
        description="Only check the request, and tell what it comes to; nothing is queued.",
    ),
]


async def dry_run(
    work: Work,
    state: State,
    caller: Caller,
    *,
    jobs: int = 1,
    needs: Collection[tuple[str, Sequence[str]]] = (),
    priority: int,
    spec: ResolvedSpec | None = None,
    time: TimeEstimate | None = None,
    warnings: Sequence[str] = (),
    base: BaseScore | None = None,
) -> DryRun:
    """The answer to a request that passed all checks. ``needs`` has the generator and the VLMs of
    each of its jobs."""
    quota = caller.quotas.work if caller.quotas else None
    left = None
    if quota is not None:
        left = max(quota - await state.jobs.unfinished_work(caller.owner), 0)
    return DryRun(
        jobs=jobs,
        work=work.total,
        parts={part: pixels / MEGAPIXEL for part, pixels in work.parts.items() if pixels},
        quota=quota,
        left=left,
        refused=await _refused(jobs, work, left, state, caller),
        warnings=list(warnings),
        spec=spec,
        queues=[await _queue(*need, priority, state) for need in _different(needs)],
        time=time,
        base=base,
    )


async def how_long(several: Sequence[tuple[ResolvedJobSpec, Work]], state: State) -> TimeEstimate:
    """For these jobs together."""
    known: dict[str, list[Measured]] = {}
    for spec, _ in several:
        teachers = [use.name for use in spec.vlm]
        pair = keys.pair(spec.generator, teachers)
        if pair not in known:
            known[pair] = await state.paces.known(spec.generator, teachers)

    def of_each() -> list[TimeEstimate]:
        pairs = (keys.pair(spec.generator, [use.name for use in spec.vlm]) for spec, _ in several)
        return [
            estimate(spec, work, known[pair])
            for (spec, work), pair in zip(several, pairs, strict=True)
        ]

    return TimeEstimate.together(await asyncio.to_thread(of_each))


async def _refused(
    jobs: int, work: Work, left: float | None, state: State, caller: Caller
) -> Problem | None:
    """As ``quota_exceeded`` in enqueue.lua decides it."""
    if caller.quotas is None:
        return None
    queued = await state.redis.zcard(keys.jobs_key(owner=caller.owner, status=JobStatus.QUEUED))
    if jobs and queued + jobs > caller.quotas.queued:
        return over(QuotaExceeded("queued", caller.quotas.queued))
    if caller.quotas.work is not None and left is not None and work.total > left:
        return work_is_used_up(WorkExceeded(caller.quotas.work, left), work).problem
    return None


async def _queue(generator: str, vlms: Sequence[str], priority: int, state: State) -> QueueAhead:
    ahead = await state.queue.ahead(generator, vlms, priority=priority)
    live = await state.workers.live()
    return QueueAhead(
        generator=generator,
        vlms=list(vlms),
        waiting=ahead.waiting,
        running=ahead.running,
        workers=sum(worker.serves(generator, vlms) for worker in live),
    )


def _different(needs: Collection[tuple[str, Sequence[str]]]) -> list[tuple[str, Sequence[str]]]:
    """One for each queue."""
    return list({keys.queue_key(*need): need for need in needs}.values())


async def answer(told: DryRun) -> JSONResponse:
    """A 200, for routes that answer a real request with another status."""
    # Outside of the event loop, since a spec can have many drawings.
    return await asyncio.to_thread(lambda: JSONResponse(told.model_dump(mode="json")))


#: How such a route documents it.
ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRun, "description": "The answer to a `dry_run`: nothing was queued."}
}
