"""Wrong keys: who sends many of them has to wait, and the log says who and never what."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.api.wrong_key_log import WrongKeyLog
from services.orchestrator.api.wrong_keys import WrongKeys
from services.orchestrator.store.keys import ApiKeys
from services.orchestrator.store.redis import Client
from services.orchestrator.ui.paths import KEY_COOKIE
from tests.orchestrator.conftest import Guarded
from tests.redis_server import RedisServer

FREE = 3


@pytest.fixture
async def guarded(
    redis: Client, redis_server: RedisServer, artifacts: str
) -> AsyncIterator[Guarded]:
    settings = ApiSettings(
        redis_url=redis_server.url,
        artifacts=artifacts,
        auth=True,
        wrong_keys=FREE,
        trusted_proxies="10.0.0.0/8, fd00::/8",
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield Guarded(app, ApiKeys(redis))


def wrong(key: str) -> str:
    """As good as the key, but for its last letters."""
    return key[:-4] + ("0000" if not key.endswith("0000") else "1111")


async def ask(
    guarded: Guarded, key: str, *, peer: str = "203.0.113.7", path: str = "/v1/jobs", **sent: str
) -> httpx.Response:
    transport = httpx.ASGITransport(guarded.app, client=(peer, 1))
    headers = ({"Authorization": f"Bearer {key}"} if key else {}) | {
        name.replace("_", "-"): value for name, value in sent.items()
    }
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get(path, headers=headers)


async def slow(guarded: Guarded, **sender: str) -> httpx.Response:
    """What the address is answered once it has to wait."""
    key = wrong(await guarded.key())
    for _ in range(FREE):
        assert (await ask(guarded, key, **sender)).status_code == 401
    return await ask(guarded, key, **sender)


@pytest.mark.parametrize("path", ["/v1/jobs", f"/v1/jobs/{'0' * 26}/events", "/nowhere"])
async def test_an_address_with_many_wrong_keys_has_to_wait(guarded: Guarded, path: str) -> None:
    answer = await slow(guarded, path=path)
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "1"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert "many" in answer.json()["title"]
    # Another address is another.
    assert (await ask(guarded, "dp_x", peer="203.0.113.8")).status_code == 401


async def test_the_pages_cookie_is_counted_as_the_header_is(guarded: Guarded) -> None:
    path = "/ui/gradio_api/queue/data"
    for status in (*[401] * FREE, 429):
        answer = await ask(guarded, "", path=path, Cookie=f"{KEY_COOKIE}=dp_wrong")
        assert answer.status_code == status


async def test_a_right_key_gets_in_from_there_at_any_time(guarded: Guarded) -> None:
    key = await guarded.key()
    assert (await slow(guarded)).status_code == 429
    assert (await ask(guarded, key)).status_code == 200
    # It does not make the wrong ones begin anew.
    assert (await ask(guarded, wrong(key))).status_code == 429


async def test_no_key_at_all_is_no_wrong_key(guarded: Guarded) -> None:
    for _ in range(FREE + 2):
        assert (await ask(guarded, "")).status_code == 401


async def test_a_revoked_key_is_a_wrong_one(guarded: Guarded) -> None:
    key = await guarded.key()
    await guarded.keys.revoke(key.split("_")[1])
    for status in (*[401] * FREE, 429):
        assert (await ask(guarded, key)).status_code == status


async def test_wrong_keys_write_nothing_to_redis(guarded: Guarded, redis: Client) -> None:
    key = wrong(await guarded.key())
    before = await redis.info("commandstats")
    for _ in range(FREE + 3):
        await ask(guarded, key)
    after = await redis.info("commandstats")

    def calls(info: dict[str, dict[str, int]], command: str) -> int:
        return info.get(f"cmdstat_{command}", {}).get("calls", 0)

    assert calls(after, "hgetall") - calls(before, "hgetall") == FREE + 3
    for command in ("set", "incr", "hset", "expire", "zadd"):
        assert calls(after, command) == calls(before, command)


PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "same"),
    [
        # What a trusted proxy says of who asked it.
        (PROXY, "203.0.113.7", ("203.0.113.9", "", False)),
        (PROXY, "203.0.113.7", ("203.0.113.7", "", True)),
        (PROXY, "203.0.113.7, 10.0.0.2", (PROXY, "203.0.113.7", True)),
        (PROXY, "203.0.113.7:4711", (PROXY, "203.0.113.7", True)),
        # What stands before it is the sender's own word.
        (PROXY, "198.51.100.1, 203.0.113.7", (PROXY, "198.51.100.2, 203.0.113.7", True)),
        (PROXY, "rubbish, 203.0.113.7", (PROXY, "203.0.113.7", True)),
        # Others' word is worth nothing.
        ("203.0.113.7", "198.51.100.1", ("203.0.113.7", "198.51.100.2", True)),
        # One customer's network, and the next one's.
        ("2001:db8:0:1::1", "", ("2001:db8:0:1:ffff::2", "", True)),
        ("2001:db8:0:1::1", "", ("2001:db8:0:2::1", "", False)),
        (PROXY, "[2001:db8:0:1::1]:80", ("2001:db8:0:1::2", "", True)),
        ("::ffff:203.0.113.7", "", ("203.0.113.7", "", True)),
    ],
)
async def test_an_address_is_the_clients_own(
    guarded: Guarded, peer: str, forwarded: str, same: tuple[str, str, bool]
) -> None:
    def told(value: str) -> dict[str, str]:
        return {"X_Forwarded_For": value} if value else {}

    assert (await slow(guarded, peer=peer, **told(forwarded))).status_code == 429
    other, by, is_same = same
    answer = await ask(guarded, "dp_x", peer=other, **told(by))
    assert answer.status_code == (429 if is_same else 401)


async def test_the_log_names_address_and_route_and_nothing_of_the_key(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    key = wrong(await guarded.key())
    await ask(guarded, key, peer="203.0.113.7", path=f"/v1/jobs/{key}/events")
    (line,) = [one.getMessage() for one in caplog.records if "API key" in one.getMessage()]
    assert "203.0.113.7" in line
    assert "GET /v1/jobs/{job_id}/events" in line
    assert not any(part in line for part in key.split("_"))
    caplog.clear()
    await ask(guarded, key, peer="2001:db8::5", path=f"/%1b[31m{key}%0aforged")
    (line,) = [one.getMessage() for one in caplog.records if "API key" in one.getMessage()]
    assert line.isprintable()
    assert "2001:db8::/64" in line
    assert "forged" not in line


class Clock:
    """Seconds, as the test has them pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_wrong_key_doubles_the_wait_up_to_the_longest() -> None:
    clock = Clock()
    wrong_keys = WrongKeys(2, 60, clock=clock)
    assert wrong_keys.count("a").waits == 0
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        assert wrong_keys.count("a").waits == 0
        assert wrong_keys.count("a").waits == pause
        clock.now += pause - 0.5
        # One that comes meanwhile makes it no longer.
        assert wrong_keys.count("a").waits == 0.5
        clock.now += 0.5
    counted = wrong_keys.count("a")
    assert (counted.waits, counted.unseen) == (0, 2)
    clock.now += 121
    for waits in (0, 0, 1):
        assert wrong_keys.count("a").waits == waits


def test_addresses_take_a_bounded_memory() -> None:
    wrong_keys = WrongKeys(1, 60, clock=Clock())
    for number in range(20_000):
        wrong_keys.count(str(number))
    # The latest are known, the first no more.
    assert wrong_keys.count("19999").waits == 1
    assert wrong_keys.count("0").waits == 0
    assert len(wrong_keys) == 10_000


def test_the_log_has_a_bounded_number_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    written = WrongKeyLog(clock=clock)
    for number in range(1000):
        written.write("is unknown", f"address {number}", "GET /v1/jobs", unseen=0)
    assert len(caplog.records) == 30
    clock.now += 60
    written.write("is unknown", "address 1", "GET /v1/jobs", unseen=4)
    last = caplog.records[-1].getMessage()
    assert "4 more came" in last
    assert "970 others" in last
