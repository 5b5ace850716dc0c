"""A worker: it claims jobs for one generator, as many at once as it has slots."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets

import grpc
from redis.exceptions import ConnectionError, TimeoutError

from dualprocess.v1 import generator_pb2, generator_pb2_grpc
from services.common.channels import open_channel
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import connect, queue_key
from services.orchestrator.store.workers import LiveWorker, Workers
from services.orchestrator.worker.runner import Runner
from services.orchestrator.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

#: Redis may be away for about two minutes before a running job's attempt ends for it.
_REDIS_RETRIES = 60
_DESCRIBE_SECONDS = 5.0
_HEARTBEAT_SECONDS = 10.0


class Worker:
    """``run`` works until it is cancelled, then gives its jobs back."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._id = f"{settings.name}-{secrets.token_hex(4)}"
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        redis = connect(self._settings.redis_url, retries=_REDIS_RETRIES)
        queue = Queue(redis, lease_ms=int(self._settings.lease_seconds * 1000))
        artifacts = ArtifactStore(self._settings.artifacts)
        try:
            async with open_channel(self._settings.generator) as channel:
                stub = generator_pb2_grpc.GeneratorStub(channel)
                runner = Runner(self._settings, queue, Jobs(redis), artifacts, stub)
                await self._serve(queue, Workers(redis), runner, stub)
        finally:
            await redis.aclose()

    async def _serve(
        self,
        queue: Queue,
        workers: Workers,
        runner: Runner,
        stub: generator_pb2_grpc.GeneratorAsyncStub,
    ) -> None:
        me: LiveWorker | None = None
        try:
            while True:
                try:
                    me = await self._described(stub)
                    await workers.beat(me, seconds=_HEARTBEAT_SECONDS)
                    await self._tidy(queue)
                    await self._claim(queue, runner, me)
                except (ConnectionError, TimeoutError) as error:
                    log.warning("Redis is away: %s", error)
                await asyncio.sleep(self._settings.poll_seconds)
        finally:
            for job in self._running:
                job.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            if me is not None:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await workers.leave(me)

    async def _described(self, stub: generator_pb2_grpc.GeneratorAsyncStub) -> LiveWorker:
        """Who this worker is; waits until its generator answers.

        Nothing is claimed for a generator that is away: an attempt would be lost for nothing.
        """
        said = False
        while True:
            try:
                described = await stub.Describe(
                    generator_pb2.GeneratorDescribeRequest(), timeout=_DESCRIBE_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                if not said:
                    log.info("waiting for the generator: %s", error.details())
                    said = True
                await asyncio.sleep(self._settings.poll_seconds)
                continue
            if said:
                log.info("the generator serves %s", described.preset)
            return LiveWorker(self._id, described.preset, tuple(self._settings.vlms))

    async def _tidy(self, queue: Queue) -> None:
        """What any worker does for all: takes jobs from dead ones, ends pauses."""
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
        await queue.promote()

    async def _claim(self, queue: Queue, runner: Runner, me: LiveWorker) -> None:
        queues = [queue_key(me.generator, vlm) for vlm in (None, *me.vlms)]
        while len(self._running) < self._settings.slots:
            claim = await queue.claim(me.id, queues)
            if claim is None:
                return
            task = asyncio.create_task(runner.run(claim))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
