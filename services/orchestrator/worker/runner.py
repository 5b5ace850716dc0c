"""One job, from its claim to its end."""

from __future__ import annotations

import asyncio
import logging

import grpc

from dualprocess.schemas import Job, JobStatus, ResolvedJobSpec
from dualprocess.v1 import generator_pb2_grpc
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.queue import Claim, LeaseLost, Queue
from services.orchestrator.worker.failures import JobRefused, JobStopped, cause_of
from services.orchestrator.worker.images import render
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.optimize import optimize
from services.orchestrator.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

#: A lease is renewed so often in its own time: four may be missed before it is over.
_RENEWALS = 5


class Runner:
    """Runs claimed jobs on one generator."""

    def __init__(
        self,
        settings: WorkerSettings,
        queue: Queue,
        jobs: Jobs,
        artifacts: ArtifactStore,
        generator: generator_pb2_grpc.GeneratorAsyncStub,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._jobs = jobs
        self._artifacts = artifacts
        self._generator = generator

    async def run(self, claim: Claim) -> None:
        """Ends with the job finished, given back, or another's; cancelled, it gives it back."""
        job = await self._jobs.read(claim.job_id)
        assert job is not None
        lease = Lease(claim, self._queue, self._artifacts, attempt=job.attempt)
        log.info("job %s: attempt %d", job.id, job.attempt)
        try:
            try:
                status = await self._under_lease(job, lease)
            except JobStopped:
                status = JobStatus.CANCELLED
            await self._queue.finish(claim, status)
            log.info("job %s: %s", job.id, status)
        except LeaseLost:
            log.warning("job %s: its lease is another's; nothing more is written", job.id)
        except JobRefused as error:
            await self._fail(claim, str(error))
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(job, claim, "the worker stopped", counted=False))
            raise
        except grpc.aio.AioRpcError as error:
            await self._after_rpc_error(job, claim, error)
        except Exception as error:
            log.exception("job %s: the worker made a mistake", job.id)
            await self._give_back(job, claim, f"the worker: {type(error).__name__}: {error}")

    async def _under_lease(self, job: Job, lease: Lease) -> JobStatus:
        """The job's work; when the lease is lost the work ends at once with ``LeaseLost``."""
        every = self._settings.lease_seconds / _RENEWALS
        work = asyncio.create_task(self._work(job, lease))
        keep = asyncio.create_task(lease.keep(every))
        try:
            done, _ = await asyncio.wait({work, keep}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work in done else keep.result()  # type: ignore[return-value]
        finally:
            for task in (work, keep):
                task.cancel()
            await asyncio.gather(work, keep, return_exceptions=True)

    async def _work(self, job: Job, lease: Lease) -> JobStatus:
        target = self._settings.vlms[job.vlm] if job.vlm else None
        if isinstance(job.spec, ResolvedJobSpec):
            assert target is not None
            return await optimize(job.spec, lease, self._generator, target)
        return await render(job.spec, lease, self._generator, target, self._jobs, self._artifacts)

    async def _after_rpc_error(self, job: Job, claim: Claim, error: grpc.aio.AioRpcError) -> None:
        try:
            cause = cause_of(error, f"the generator {job.generator}")
        except JobRefused as refusal:
            await self._fail(claim, str(refusal))
            return
        await self._give_back(job, claim, cause)

    async def _fail(self, claim: Claim, error: str) -> None:
        try:
            await self._queue.finish(claim, JobStatus.FAILED, error)
            log.info("job %s: failed: %s", claim.job_id, error)
        except LeaseLost:
            log.warning("job %s: its lease is another's", claim.job_id)

    async def _give_back(self, job: Job, claim: Claim, cause: str, *, counted: bool = True) -> None:
        pause = self._settings.pause_seconds * 2 ** (job.attempt - 1) if counted else 0
        status = await self._queue.requeue(
            claim,
            cause,
            attempts=self._settings.attempts,
            pause_ms=int(pause * 1000),
            counted=counted,
        )
        log.warning("job %s: attempt %d ended: %s; now %s", job.id, job.attempt, cause, status)
