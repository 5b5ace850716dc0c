"""Sends what the outbox holds.

Runs in the API's processes: they are there when the last worker is not, as when the queue was
empty and workers were scaled away between two attempts, and a receiver that hears of a job asks
them about it. Any number of them share the work; one that dies is followed by another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from redis.exceptions import ConnectionError, TimeoutError

from dualprocess.schemas import Job, WebhookMessage
from services.orchestrator.pauses import pause
from services.orchestrator.store.jobs import Jobs
from services.orchestrator.store.newer import UnreadableJob
from services.orchestrator.store.outbox import Delivery, Outbox
from services.orchestrator.webhooks.post import NotDelivered, Poster
from services.orchestrator.webhooks.signature import signed_headers

log = logging.getLogger(__name__)

#: How many messages are sent at once. A slow receiver takes one of these places for at most ten
#: seconds.
_AT_ONCE = 32
_STOP_SECONDS = 2.0


class Courier:
    """Sends each message until it is delivered. ``pauses`` are the seconds before each further
    attempt; after the last one the message is given up."""

    def __init__(
        self,
        outbox: Outbox,
        jobs: Jobs,
        poster: Poster,
        *,
        pauses: Sequence[float],
        poll_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._jobs = jobs
        self._poster = poster
        self._pauses = tuple(pauses)
        self._poll_seconds = poll_seconds
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until ``stopping``; what is under way has a moment to be settled."""
        while not stopping.is_set():
            try:
                await self._claim()
            except (ConnectionError, TimeoutError) as error:
                log.warning("Redis is away: %s", error)
            except Exception:
                log.exception("sending messages failed by a mistake of the service")
            await pause(self._poll_seconds, stopping)
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=_STOP_SECONDS)
            for task in late:
                # Sent again by another, under the same id.
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claim(self) -> None:
        while len(self._under_way) < _AT_ONCE and (delivery := await self._outbox.claim()):
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            job = await self._jobs.read(delivery.job_id)
            if job is not None:
                await self._attempt(delivery, job)
        except UnreadableJob as error:
            await self._put_off(delivery, NotDelivered(str(error)))
        except (ConnectionError, TimeoutError) as error:
            # Its lease runs out, and it is sent again under the same id.
            log.warning(
                "job %s: the state of its message could not be saved: %s", delivery.job_id, error
            )

    async def _attempt(self, delivery: Delivery, job: Job) -> None:
        body = message(job)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "dualprocess",
            **signed_headers(f"msg_{job.id}", int(time.time()), body, delivery.secret),
        }
        try:
            await self._poster.post(delivery.url, headers, body)
        except NotDelivered as error:
            await self._put_off(delivery, error)
            return
        except Exception as error:
            log.exception("job %s: sending messages failed by a mistake of the service", job.id)
            await self._put_off(delivery, NotDelivered(f"{type(error).__name__}: {error}"))
            return
        await self._outbox.delivered(delivery)
        log.info("job %s: its message was delivered", job.id)

    async def _put_off(self, delivery: Delivery, error: NotDelivered) -> None:
        log.info("job %s: attempt %d at its message: %s", delivery.job_id, delivery.attempt, error)
        if error.gone or delivery.attempt > len(self._pauses):
            await self._outbox.given_up(delivery, str(error))
            return
        seconds = self._pauses[delivery.attempt - 1]
        await self._outbox.put_off(delivery, str(error), seconds=seconds)


def message(job: Job) -> bytes:
    """The body: the same bytes at every attempt."""
    body = WebhookMessage.model_validate(
        {
            "type": f"job.{job.status}",
            "timestamp": job.finished_at,
            "data": job.model_copy(update={"webhook": None}),
        }
    )
    return body.model_dump_json().encode()
