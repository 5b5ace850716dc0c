"""One job, from its claim to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection
from typing import Any, NoReturn

import grpc

from dualprocess.schemas import Job, JobStatus, ResolvedImagesSpec, ResolvedJobSpec
from dualprocess.v1 import generator_pb2_grpc
from services.common import tracing, trail
from services.common.trail import Trail
from services.orchestrator.metrics import LEASES_LOST, QUEUE_WAIT, vlms_label
from services.orchestrator.store.newer import UnreadableJob
from services.orchestrator.store.origins import Origin
from services.orchestrator.store.queue import Blame, Claim, LeaseLost, Queue
from services.orchestrator.worker.checkpoints import discard
from services.orchestrator.worker.company import Company
from services.orchestrator.worker.failures import (
    AttemptFailed,
    DeviceFailed,
    GeneratorTroubled,
    JobRefused,
    JobStopped,
    ServiceEnded,
    WorkerStopping,
    generators_failure,
)
from services.orchestrator.worker.images import render
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.optimize import optimize
from services.orchestrator.worker.settings import WorkerSettings
from services.orchestrator.worker.stores import Stores
from services.orchestrator.worker.targets import Targets
from services.orchestrator.worker.words import speak

log = logging.getLogger(__name__)

#: How often a lease is renewed within its own time: four renewals may be missed before it is over.
_RENEWALS = 5
#: Seconds that a job has to end or to be suspended once its worker stops.
SUSPEND_SECONDS = 5.0
#: The pause before a job that only a newer version can read is offered again.
_NEWER_PAUSE_SECONDS = 10.0


class Runner:
    """Runs claimed jobs on one generator, until ``stopping`` is set. ``device`` is the name of the
    generator's device, as it was last described."""

    def __init__(
        self,
        settings: WorkerSettings,
        queue: Queue,
        stores: Stores,
        generator: generator_pb2_grpc.GeneratorAsyncStub,
        targets: Targets,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._stores = stores
        self._generator = generator
        self._stopping = stopping
        self._targets = targets
        self._company = Company()
        self.device = ""

    async def run(self, claim: Claim) -> None:
        """Ends with the job finished, given back, or another's. The rest of the task is for it."""
        trail.begin(Trail(claim.job_id))
        try:
            origin = await self._stores.jobs.origin(claim.job_id)
            trail.begin(origin.trail)
            job = await self._stores.jobs.read(claim.job_id, whole=True)
            assert job is not None
            waits = QUEUE_WAIT.labels(job.generator, vlms_label(job.vlms))
            waits.observe(claim.waited_seconds)
            # A job of words is with no generator: it can't be what troubles one.
            aboard = self._company.joined(job.id) if job.generator else contextlib.nullcontext()
            with aboard, _traced(job, claim, origin):
                await self._attempt(job, claim)
        except UnreadableJob as error:
            await self._leave_to_newer(claim, error)
        except Exception:
            # Its lease will run out, and the job is claimed again.
            log.exception("job %s: its attempt could not be ended", claim.job_id)

    async def _leave_to_newer(self, claim: Claim, error: UnreadableJob) -> None:
        cause = f"{error}; it waits for a worker of the version that stored it"
        log.warning("%s", cause)
        await self._queue.requeue(
            claim,
            cause,
            attempts=self._settings.attempts,
            pause_ms=int(_NEWER_PAUSE_SECONDS * 1000),
            blame=Blame.OLD_WORKER,
        )

    async def _attempt(self, job: Job, claim: Claim) -> None:
        lease = Lease(
            claim,
            self._queue,
            self._stores.artifacts,
            attempt=job.attempt,
            warnings=job.warnings,
        )
        log.info("job %s: attempt %d", job.id, job.attempt)
        try:
            try:
                status = await self._under_lease(job, lease)
            except JobStopped:
                status = JobStatus.CANCELLED
            await self._queue.finish(claim, status)
            tracing.note_outcome(status, failed=False)
            await self._ended(job.id, status)
        except LeaseLost:
            LEASES_LOST.inc()
            tracing.note_outcome("lease lost", failed=True)
            log.warning("job %s: another worker has its lease; nothing more is written", job.id)
        except JobRefused as error:
            await self._fail(claim, str(error))
        except WorkerStopping:
            await self._give_back(job, claim, "the worker stopped", Blame.NOBODY)
        except ServiceEnded as error:
            await self._give_back(job, claim, str(error), Blame.NOBODY)
        except DeviceFailed as error:
            await self._give_back(job, claim, str(error), Blame.DEVICE, error.device)
        except GeneratorTroubled as error:
            blame = Blame.NEIGHBOUR if self._company.had(job.id) else Blame.JOB
            await self._give_back(job, claim, str(error), blame)
        except AttemptFailed as error:
            await self._give_back(job, claim, str(error))
        except Exception as error:
            log.exception("job %s: the worker made a mistake", job.id)
            await self._give_back(job, claim, f"the worker: {type(error).__name__}: {error}")

    async def _under_lease(self, job: Job, lease: Lease) -> JobStatus:
        """The job's work; it ends at once when the lease is lost, and soon when the worker stops.

        Whatever goes wrong while the worker stops says nothing against the job.
        """
        every = self._settings.lease_seconds / _RENEWALS
        work = asyncio.create_task(self._work(job, lease))
        others = {asyncio.create_task(lease.keep(every)), asyncio.create_task(self._stopped())}
        try:
            await asyncio.wait({work, *others}, return_when=asyncio.FIRST_COMPLETED)
            if work.cancelled():
                # grpc.aio cancels a call whose request can't be written, and keeps why to itself.
                raise AttemptFailed("the worker: a call was cancelled unexpectedly")
            if work.done():
                return work.result()
            raise next(filter(None, (task.exception() for task in others if task.done())))
        except AttemptFailed as error:
            if self._stopping.is_set():
                raise WorkerStopping from error
            raise
        finally:
            await cancelled({work, *others})

    async def _stopped(self) -> NoReturn:
        await self._stopping.wait()
        await asyncio.sleep(SUSPEND_SECONDS)
        raise WorkerStopping

    async def _work(self, job: Job, lease: Lease) -> JobStatus:
        services = (self._generator, self._targets, self._stores)
        if not isinstance(job.spec, ResolvedJobSpec | ResolvedImagesSpec):
            return await speak(job.spec, lease, self._targets, self._stores)
        try:
            if isinstance(job.spec, ResolvedJobSpec):
                return await optimize(
                    job.spec, lease, *services, owner=job.owner, stopping=self._stopping
                )
            return await render(job.spec, lease, *services, owner=job.owner)
        except grpc.aio.AioRpcError as error:
            raise generators_failure(error, job.generator, self.device) from error

    async def _fail(self, claim: Claim, error: str) -> None:
        tracing.note_outcome(JobStatus.FAILED, failed=True)
        try:
            await self._queue.finish(claim, JobStatus.FAILED, error)
            await self._ended(claim.job_id, f"failed: {error}")
        except LeaseLost:
            LEASES_LOST.inc()
            log.warning("job %s: another worker has its lease", claim.job_id)

    async def _give_back(
        self, job: Job, claim: Claim, cause: str, blame: Blame = Blame.JOB, device: str = ""
    ) -> None:
        pause_ms = int(self._settings.pause_seconds * 1000)
        status = await self._queue.requeue(
            claim,
            cause,
            attempts=self._settings.attempts,
            pause_ms=0 if blame is Blame.NOBODY else pause_ms,
            blame=blame,
            device=device,
        )
        tracing.note_outcome(f"now {status}", failed=blame is not Blame.NOBODY)
        log.warning("job %s: attempt %d ended: %s; now %s", job.id, job.attempt, cause, status)
        if status is not None and status.is_final:
            await self._ended(job.id, status)

    async def _ended(self, job_id: str, how: str) -> None:
        log.info("job %s: %s", job_id, how)
        await discard(job_id, self._stores)


def _traced(job: Job, claim: Claim, origin: Origin) -> contextlib.AbstractContextManager[None]:
    return tracing.job_span(
        origin.trace,
        waited_seconds=claim.waited_seconds,
        is_linked=job.batch is not None,
        attributes={
            "dualprocess.job": job.id,
            "dualprocess.request": origin.trail.request,
            "dualprocess.kind": job.kind,
            "dualprocess.attempt": job.attempt,
            "dualprocess.generator": job.generator,
            "dualprocess.vlms": vlms_label(job.vlms),
        },
    )


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels until they are done: redis-py and grpc.aio can lose a cancel."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
    await asyncio.gather(*tasks, return_exceptions=True)
