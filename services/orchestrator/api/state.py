"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request

from dualprocess.schemas import Job
from services.common.presets import Presets
from services.orchestrator.api.auth import Caller, CallerDep
from services.orchestrator.api.problems import ProblemError
from services.orchestrator.api.rechecks import Rechecks
from services.orchestrator.following.places import Places
from services.orchestrator.following.reader import Following
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.base_scores import BaseScores
from services.orchestrator.store.batches import Batches
from services.orchestrator.store.deletion import Deletion
from services.orchestrator.store.events import Events
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.keys import ApiKeys
from services.orchestrator.store.newer import UnreadableJob
from services.orchestrator.store.paces import Paces
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client
from services.orchestrator.store.reporter import Reporter
from services.orchestrator.store.turns import Turns
from services.orchestrator.store.uploads import Uploads
from services.orchestrator.store.workers import Workers
from services.orchestrator.webhooks.addresses import AddressPolicy
from services.orchestrator.writing.endpoint import Endpoint


@dataclass(frozen=True)
class State:
    presets: Presets
    redis: Client
    queue: Queue
    jobs: Jobs
    batches: Batches
    events: Events
    following: Following
    places: Places
    workers: Workers
    paces: Paces
    reporter: Reporter
    artifacts: ArtifactStore
    uploads: Uploads
    deletion: Deletion
    base_scores: BaseScores
    api_keys: ApiKeys
    rechecks: Rechecks
    addresses: AddressPolicy
    turns: Turns
    endpoint: Endpoint | None
    max_job_work: int
    webhook_secret: str | None = field(repr=False)

    async def job(self, job_id: str, caller: Caller) -> Job | None:
        """The job; ``None`` if it does not exist or the caller may not see it."""
        try:
            job = await self.jobs.read(job_id)
        except UnreadableJob as error:
            if caller.sees in (None, error.owner):
                raise
            return None
        return job if job and caller.may_see(job) else None


def _state(request: Request) -> State:
    state: State = request.app.state.dualprocess
    return state


StateDep = Annotated[State, Depends(_state)]


async def _job(
    job_id: Annotated[str, Path(pattern="^[0-9a-z]{26}$", description="A job's id.")],
    state: StateDep,
    caller: CallerDep,
) -> Job:
    job = await state.job(job_id, caller)
    if job is None:
        raise ProblemError(
            404, f"There is no job {job_id}", "GET /v1/jobs lists the existing ones."
        )
    return job


#: The job in the path, or a 404, also for a job of another owner.
JobDep = Annotated[Job, Depends(_job)]
