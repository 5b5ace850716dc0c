"""``?dry_run=true``: the request is checked, and answered with its work; nothing is queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import JSONResponse

from dualprocess.schemas import BaseScore, DryRun
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.state import State
from services.orchestrator.work import MEGAPIXEL, Work

IsDry = Annotated[
    bool,
    Query(
        alias="dry_run", description="Only check the request and tell its work; nothing is queued."
    ),
]


async def dry_run(
    work: Work,
    state: State,
    caller: Caller,
    *,
    jobs: int = 1,
    warnings: Sequence[str] = (),
    base: BaseScore | None = None,
) -> DryRun:
    """The answer to a request that passed all checks."""
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
        base=base,
    )


def answer(told: DryRun) -> JSONResponse:
    """A 200, for routes that answer a real request with another status."""
    return JSONResponse(told.model_dump(mode="json"))


#: How such a route documents it.
ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRun, "description": "The answer to a `dry_run`: nothing was queued."}
}
