"""``?dry_run=true``: a request is checked, and tells its work; nothing is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import JSONResponse

from dualprocess.schemas import DryRun
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.state import State
from services.orchestrator.work import MEGAPIXEL, Work

IsDry = Annotated[
    bool,
    Query(
        alias="dry_run", description="Only check the request and tell its work: nothing is queued."
    ),
]


async def dry_run(
    work: Work, state: State, caller: Caller, *, jobs: int = 1, warnings: Sequence[str] = ()
) -> DryRun:
    """What is told of a request that passed all checks."""
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
        warnings=list(warnings),
    )


def answer(told: DryRun) -> JSONResponse:
    """A 200, of a route that answers a real request otherwise."""
    return JSONResponse(told.model_dump(mode="json"))


#: What such a route documents.
ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRun, "description": "With `dry_run`: nothing was queued."}
}
