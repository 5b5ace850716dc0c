"""A worker: it claims jobs for one generator, as many at once as it has slots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets

import grpc
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from dualprocess.v1 import generator_pb2, generator_pb2_grpc
from services.common.channels import open_channel
from services.orchestrator.housekeeping import Housekeeping
from services.orchestrator.metrics import WORKER_JOBS, WORKER_SLOTS
from services.orchestrator.pauses import pause
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.base_scores import BaseScores
from services.orchestrator.store.events import Events
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.paces import Paces
from services.orchestrator.store.queue import Claim, Queue
from services.orchestrator.store.redis import connect
from services.orchestrator.store.workers import LiveWorker, Workers
from services.orchestrator.worker.alive import stay_alive
from services.orchestrator.worker.checkpoints import discard
from services.orchestrator.worker.reach import Reach
from services.orchestrator.worker.runner import Runner, cancelled
from services.orchestrator.worker.settings import WorkerSettings
from services.orchestrator.worker.stores import Stores
from services.orchestrator.worker.targets import Targets

log = logging.getLogger(__name__)

#: A running job waits for Redis without a limit. The search for jobs gives up soon and begins
#: again, so that it notices when the worker must stop.
_WAIT_FOR_EVER, _LOOK_RETRIES = -1, 4
#: The time to give jobs back when the worker stops. Redis may be away then.
_END_SECONDS = 15.0
_DESCRIBE_SECONDS = 5.0
_HEARTBEAT_SECONDS = 10.0
#: How many of its asks for a job a worker may miss and still count as waiting.
_ASKS = 4
#: And for so long at least.
_WAITS_SECONDS = 3.0


class Worker:
    """``run`` works until ``stop`` is called, then gives its jobs back."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._id = f"{settings.name}-{secrets.token_hex(4)}"
        self._running: dict[asyncio.Task[None], Claim] = {}
        # A flag, not a cancel: redis-py and grpc.aio can lose a cancel.
        self._stopping = asyncio.Event()
        self._waits = False
        WORKER_SLOTS.set(settings.slots)

    def stop(self) -> None:
        """Ends ``run`` soon."""
        self._stopping.set()

    async def run(self) -> None:
        credentials = self._settings.credentials()
        targets = Targets(self._settings.vlms, credentials)
        redis = connect(self._settings.redis_url, retries=_WAIT_FOR_EVER)
        looking = connect(self._settings.redis_url, retries=_LOOK_RETRIES)
        lease_ms = int(self._settings.lease_seconds * 1000)
        waits_ms = int(max(_WAITS_SECONDS, _ASKS * self._settings.poll_seconds) * 1000)
        queue = Queue(looking, lease_ms=lease_ms, waits_ms=waits_ms)
        artifacts = self._store()
        stores = Stores(Jobs(redis), Events(redis), artifacts, Paces(redis), BaseScores(redis))
        try:
            async with open_channel(self._settings.generator, credentials) as channel:
                stub = generator_pb2_grpc.GeneratorStub(channel)
                runner = Runner(
                    self._settings,
                    Queue(redis, lease_ms=lease_ms),
                    stores,
                    stub,
                    targets,
                    self._stopping,
                )
                housekeeping = Housekeeping(
                    self._settings,
                    looking,
                    artifacts,
                    poll_seconds=self._settings.poll_seconds,
                )
                reach = Reach(targets)
                await asyncio.gather(
                    self._serve(
                        queue,
                        Workers(looking),
                        runner,
                        stub,
                        Stores(
                            Jobs(looking),
                            Events(looking),
                            artifacts,
                            Paces(looking),
                            BaseScores(looking),
                        ),
                        reach,
                    ),
                    reach.run(self._stopping),
                    housekeeping.run(self._stopping),
                    stay_alive(self._settings.alive_file, self._stopping),
                )
        finally:
            await redis.aclose()
            await looking.aclose()

    def _store(self) -> ArtifactStore:
        return ArtifactStore(self._settings.artifacts, seconds=self._settings.store_seconds)

    async def _serve(
        self,
        queue: Queue,
        workers: Workers,
        runner: Runner,
        stub: generator_pb2_grpc.GeneratorAsyncStub,
        stores: Stores,
        reach: Reach,
    ) -> None:
        me: LiveWorker | None = None
        await reach.known.wait()
        while not self._stopping.is_set():
            try:
                before, me = me, await self._described(stub, reach)
                if before is not None and before != me:
                    await workers.leave(before)
                if me is not None:
                    await workers.beat(me, seconds=_HEARTBEAT_SECONDS)
                    await self._tidy(queue, stores)
                    await self._claim(queue, runner, me)
            except (ConnectionError, TimeoutError) as error:
                log.warning("Redis is away: %s", error)
            except Exception:
                # Also writes that a full or read-only Redis refuses. The worker goes on, since
                # running jobs need it.
                log.exception("the worker failed by a mistake of its own")
            await pause(self._settings.poll_seconds, self._stopping)
        if me is not None:
            with contextlib.suppress(RedisError):
                await queue.leave(me.id)
        await self._given_back()
        if me is not None:
            with contextlib.suppress(RedisError):
                await workers.leave(me)

    async def _given_back(self) -> None:
        if not self._running:
            return
        _, pending = await asyncio.wait(self._running, timeout=_END_SECONDS)
        for task in pending:
            job_id = self._running[task].job_id
            log.error("job %s: can't be given back now; its lease runs out", job_id)
        await cancelled(pending)

    async def _described(
        self, stub: generator_pb2_grpc.GeneratorAsyncStub, reach: Reach
    ) -> LiveWorker | None:
        """Who this worker is; None while its generator doesn't answer.

        Nothing is claimed for a generator that is away: an attempt would be lost for nothing.
        """
        try:
            described = await stub.Describe(
                generator_pb2.GeneratorDescribeRequest(), timeout=_DESCRIBE_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if not self._waits:
                log.info("waiting for the generator: %s", error.details())
            self._waits = True
            return None
        if self._waits:
            log.info("the generator serves %s", described.preset)
        self._waits = False
        device = described.device_id or f"of {self._settings.generator}"
        return LiveWorker(self._id, described.preset, reach.vlms, device)

    async def _tidy(self, queue: Queue, stores: Stores) -> None:
        """Work that every worker does for all: takes jobs from dead workers, ends pauses."""
        for claim, owner in await queue.expired():
            cause = f"worker {owner} stopped renewing its lease"
            status = await queue.requeue(
                claim,
                cause,
                attempts=self._settings.attempts,
                pause_ms=int(self._settings.pause_seconds * 1000),
                expired=True,
            )
            if status is not None:
                log.warning("job %s: %s; now %s", claim.job_id, cause, status)
                if status.is_final:
                    await discard(claim.job_id, stores)
        await queue.promote()

    async def _claim(self, queue: Queue, runner: Runner, me: LiveWorker) -> None:
        queues = await queue.served_by(me.generator, me.vlms)
        while len(self._running) < self._settings.slots and not self._runs_one_alone:
            runner.device = me.device
            claim = await queue.claim(me.id, queues, running=len(self._running), device=me.device)
            if claim is None:
                return
            task = asyncio.create_task(runner.run(claim))
            self._running[task] = claim
            WORKER_JOBS.inc()
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        WORKER_JOBS.dec()

    @property
    def _runs_one_alone(self) -> bool:
        return any(claim.alone for claim in self._running.values())
