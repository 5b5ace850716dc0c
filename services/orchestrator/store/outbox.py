"""Messages that are due: each job that ended and has a webhook, until its message is settled.

The scripts that end a job put it here, so no end is forgotten. A claimed message is due again once
its lease is over: if the process that claimed it dies, another one sends it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dualprocess.schemas import WebhookStatus
from services.orchestrator.store import redis as keys
from services.orchestrator.store.scripts import script


@dataclass(frozen=True)
class Delivery:
    """An attempt at one message; the first is number 1."""

    job_id: str
    attempt: int
    url: str
    secret: str = field(repr=False)


class Outbox:
    """``lease_ms`` must be longer than an attempt takes."""

    def __init__(self, redis: keys.Client, *, lease_ms: int = 30_000) -> None:
        self._claim = script(redis, "webhook_claim")
        self._settle = script(redis, "webhook_settle")
        self._lease_ms = lease_ms

    async def claim(self) -> Delivery | None:
        """The next message that is due."""
        claimed = await self._claim(keys=[keys.WEBHOOKS], args=[keys.job_key(""), self._lease_ms])
        if not claimed:
            return None
        job_id, attempt, url, secret = claimed
        return Delivery(job_id, int(attempt), url, secret)

    async def delivered(self, delivery: Delivery) -> bool:
        """Marks the message as delivered; false if a later attempt has taken over."""
        return await self._settled(delivery, WebhookStatus.DELIVERED)

    async def put_off(self, delivery: Delivery, error: str, *, seconds: float) -> bool:
        """Makes the message due again after this time. False as for ``delivered``."""
        return await self._settled(delivery, WebhookStatus.PENDING, error, seconds)

    async def given_up(self, delivery: Delivery, error: str) -> bool:
        """Gives the message up. False as for ``delivered``."""
        return await self._settled(delivery, WebhookStatus.GIVEN_UP, error)

    async def _settled(
        self, delivery: Delivery, status: WebhookStatus, error: str = "", seconds: float = 0
    ) -> bool:
        return bool(
            await self._settle(
                keys=[keys.job_key(delivery.job_id), keys.WEBHOOKS],
                args=[delivery.job_id, delivery.attempt, status, error, int(seconds * 1000)],
            )
        )
