"""Messages that are due, as the couriers share them, on Redis's own clock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from dualprocess.schemas import Job, WebhookState, WebhookStatus
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.outbox import Delivery, Outbox
from services.orchestrator.store.redis import WEBHOOKS, Client, job_key
from tests.orchestrator.conftest import ASKED, Api
from tests.orchestrator.test_webhooks import SECRET
from tests.redis_server import RedisServer

URL = "https://93.184.215.14/hook"


@pytest.fixture
async def api(redis: Client, redis_server: RedisServer, artifacts: str) -> AsyncIterator[Api]:
    """An API whose courier looks for messages once at its start, and then not for an hour."""
    settings = ApiSettings(redis_url=redis_server.url, artifacts=artifacts, poll_seconds=3600)
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost", headers=ASKED
        ) as http,
    ):
        yield Api(http)


@pytest.fixture
async def ended(api: Api) -> Job:
    """A job whose message is due."""
    job = await api.submit(webhook={"url": URL, "secret": SECRET})
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    return job


async def state(api: Api, job: Job) -> WebhookState:
    webhook = (await api.job(job.id)).webhook
    assert webhook is not None
    return webhook


async def test_a_message_is_one_couriers_while_its_lease_lasts(
    ended: Job, api: Api, redis: Client
) -> None:
    outbox = Outbox(redis, lease_ms=3_600_000)
    assert (await state(api, ended)).attempts == 0
    assert await outbox.claim() == Delivery(ended.id, 1, URL, SECRET)
    assert await outbox.claim() is None
    assert (await state(api, ended)).attempts == 1


async def test_who_died_with_a_message_is_followed_and_has_no_say(
    ended: Job, api: Api, redis: Client
) -> None:
    dead, alive = Outbox(redis, lease_ms=0), Outbox(redis, lease_ms=3_600_000)
    first = await dead.claim()
    second = await alive.claim()
    assert first is not None
    assert second is not None
    assert (first.attempt, second.attempt) == (1, 2)
    assert not await alive.given_up(first, "late")
    assert (await state(api, ended)).status == WebhookStatus.PENDING
    assert await alive.delivered(second)
    assert (await state(api, ended)).status == WebhookStatus.DELIVERED
    assert not await alive.put_off(second, "again", seconds=0), "it is settled"


async def test_a_message_that_is_put_off_is_due_after_its_pause(
    ended: Job, api: Api, redis: Client
) -> None:
    outbox = Outbox(redis, lease_ms=3_600_000)
    first = await outbox.claim()
    assert first is not None
    assert await outbox.put_off(first, "503", seconds=3600)
    assert (await state(api, ended)).error == "503"
    assert await outbox.claim() is None, "its pause is not over"
    await redis.zadd(WEBHOOKS, {ended.id: 0})
    second = await outbox.claim()
    assert second is not None
    assert await outbox.delivered(second)
    settled = await state(api, ended)
    assert (settled.status, settled.attempts, settled.error) == (WebhookStatus.DELIVERED, 2, None)


@pytest.mark.parametrize("how", ["delivered", "given up"])
async def test_a_settled_message_is_never_due_again_and_its_secret_is_gone(
    ended: Job, redis: Client, how: str
) -> None:
    outbox = Outbox(redis, lease_ms=0)
    delivery = await outbox.claim()
    assert delivery is not None
    settled = outbox.delivered(delivery) if how == "delivered" else outbox.given_up(delivery, "410")
    assert await settled
    assert await outbox.claim() is None
    assert SECRET not in str(await redis.hgetall(job_key(ended.id)))
