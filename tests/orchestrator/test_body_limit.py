"""The size of a request's body: the server's limit holds for every key, whatever its quota."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.keys import ApiKeys
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Guarded
from tests.redis_server import RedisServer

LIMIT = 2000


@pytest.fixture
async def small(redis: Client, redis_server: RedisServer, artifacts: str) -> AsyncIterator[Guarded]:
    """An API with keys whose own limit is ``LIMIT``."""
    settings = ApiSettings(
        redis_url=redis_server.url, artifacts=artifacts, auth=True, body_limit=LIMIT
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield Guarded(app, ApiKeys(redis))


def body(size: int) -> bytes:
    """A valid request with this many bytes."""
    spec = json.dumps(SPEC).encode()
    return spec + b" " * (size - len(spec))


async def pieces(whole: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(whole), 500):
        yield whole[begin : begin + 500]


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(
    ("quota", "limit", "whose"),
    [(1 << 20, LIMIT, ""), (LIMIT, LIMIT, ""), (900, 900, ", the quota body_bytes of this key")],
)
async def test_the_lower_of_the_servers_limit_and_the_keys_quota_holds(
    small: Guarded, quota: int, limit: int, whose: str, announced: bool
) -> None:
    owner = await small.owner(body_bytes=quota)

    async def sent(size: int) -> httpx.Response:
        content = body(size) if announced else pieces(body(size))
        return await owner.http.post("/v1/jobs", content=content, headers=JSON)

    refused = await sent(limit + 1)
    assert refused.status_code == 413, f"a quota of {quota:,} bytes must not raise the limit"
    assert f"may have {limit:,} bytes{whose};" in refused.json()["detail"]
    accepted = await sent(limit)
    assert accepted.status_code == 202, accepted.text
