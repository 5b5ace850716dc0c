"""Redis's address in every process: a sentence at the start, without the password, or it works."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from redis import Redis

from services.common.redis_address import RedisUrl, redis_refusal
from services.orchestrator.settings import StoreSettings
from services.orchestrator.store.redis import connect
from tests.redis_server import RedisServer

SECRET = "topsecret"
#: Each of these characters ends a part of an address.
HARD = f"{SECRET}/#?@:[]%w"
ESCAPED = f"{SECRET}%2F%23%3F%40%3A%5B%5D%25w"

REFUSED = [
    (f"redis://:{SECRET}/x@127.0.0.1:6379/0", "%2F for /"),
    (f"redis://:x/{SECRET}@127.0.0.1:6379/0", "%2F for /"),
    (f"redis://:{SECRET}#x@127.0.0.1:6379/0", "%23 for #"),
    (f"redis://:x#{SECRET}@127.0.0.1:6379/0", "%23 for #"),
    (f"redis://:{SECRET}?x@127.0.0.1:6379/0", "escaped"),
    (f"redis://:x@{SECRET}/y@127.0.0.1:6379/0", "escaped"),
    (f"redis://me:1234/{SECRET}@127.0.0.1:6379/0", "escaped"),
    (f"redis://:{SECRET}[x@127.0.0.1:6379/0", "escaped"),
    (f"redis://:{HARD}@127.0.0.1:6379/0", "escaped"),
    (f"rediss://me:{SECRET}/x@redis.example:6379", "escaped"),
    (f"unix://:{SECRET}/x@/run/redis.sock", "escape"),
    (f"unix://:{SECRET}#x@/run/redis.sock", "escaped"),
    ("unix://run/redis.sock", "unix:///path"),
    (f"me:{SECRET}@127.0.0.1:6379", "has no scheme"),
    (f":{SECRET}@127.0.0.1", "has no scheme"),
    ("127.0.0.1:6379", "redis://127.0.0.1:6379/0"),
    ("localhost", "has no scheme"),
    ("redis:/127.0.0.1", "has no scheme"),
    (f"http://:{SECRET}@127.0.0.1:6379", "another scheme"),
    (f"postgres://me:{SECRET}@127.0.0.1/db", "another scheme"),
    (f"tcp://:{SECRET}@127.0.0.1:6379", "another scheme"),
    (f"redis+sentinel://:{SECRET}@127.0.0.1:26379", "/service/0"),
    (f"redis+sentinel://:{SECRET}@127.0.0.1:26379/0/1/2", "/service/0"),
    (f"redis+sentinel://:{SECRET}@127.0.0.1:26379,/main", "/service/0"),
    (f"redis+sentinel://:{SECRET}@127.0.0.1:one/main", "a number as each port"),
    (f"redis+sentinel://:{SECRET}@127.0.0.1/main?timeout=1", "an option after the ?"),
    (f"sentinel://:{SECRET}@127.0.0.1:26379/main", "another scheme"),
    ("redis://127.0.0.1:port/0", "a number as its port"),
    ("redis://127.0.0.1:99999/0", "a number as its port"),
    ("redis://127.0.0.1:6379/main", "the number of a database"),
    ("redis://127.0.0.1:6379/0/1", "the number of a database"),
    (f"redis://:{SECRET}@127.0.0.1:6379/0?timeout=1", "an option after the ?"),
    (f"redis://:{SECRET}\n@127.0.0.1:6379/0", "one line"),
]
TAKEN = [
    "redis://127.0.0.1:6379/0",
    "redis://127.0.0.1",
    "redis://localhost:6379/",
    "redis://[::1]:6379/1",
    "rediss://me:x@redis.example:6380/0?ssl_cert_reqs=none",
    f"redis://:{ESCAPED}@127.0.0.1:6379/0",
    # These can be read in only one way.
    "redis://:p@ss@127.0.0.1:6379/0",
    "redis+sentinel://127.0.0.1,sentinel.example:26380,[::1]:26379/main",
    f"rediss+sentinel://me:{ESCAPED}@127.0.0.1/main/3?sentinel_password=x&ssl_cert_reqs=none",
    "unix:///run/redis.sock",
    "unix://me:x@/run/redis.sock?db=1",
    "redis://127.0.0.1:6379/0\n",
]

_URL: TypeAdapter[str] = TypeAdapter(RedisUrl)


@pytest.mark.parametrize(("url", "said"), REFUSED)
@pytest.mark.parametrize("variable", ["REDIS_URL", "DUALPROCESS_REDIS_URL"])
def test_an_address_that_is_none_is_told_what_to_be_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str, said: str
) -> None:
    for name in ("REDIS_URL", "DUALPROCESS_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, url)
    with pytest.raises(ValidationError) as raised:
        StoreSettings()
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("url", TAKEN)
def test_an_address_that_is_one_stays_as_it_is(url: str) -> None:
    assert _URL.validate_python(url) == url.strip()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, str]]:
    """A Redis with a password of all those characters, and its host with port."""
    server = RedisServer(tmp_path_factory.mktemp("guarded"))
    server.start()
    with Redis.from_url(server.url) as redis:
        redis.config_set("requirepass", HARD)
    yield server, server.url.removeprefix("redis://").removesuffix("/0")
    server.stop()


async def test_a_password_of_any_characters_works_escaped(
    guarded: tuple[RedisServer, str],
) -> None:
    _, place = guarded
    url = _URL.validate_python(f"redis://:{ESCAPED}@{place}/0")
    assert redis_refusal(url) is None
    redis = connect(url, retries=0)
    assert await redis.ping()
    await redis.aclose()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("redis://{place}/0", "or asks for one and the address has none"),
        (f"redis://:{SECRET}@{{place}}/0", "refuses the user or password"),
        (f"redis://me:{SECRET}@{{place}}/0", "refuses the user or password"),
        (f"redis://:{ESCAPED}@{{place}}/99", "has no database with this number"),
        (f"rediss://:{ESCAPED}@{{place}}/0", "TLS with Redis fails"),
    ],
)
def test_a_redis_that_will_never_let_in_is_told_from_one_that_is_away(
    guarded: tuple[RedisServer, str], address: str, said: str
) -> None:
    refusal = redis_refusal(address.format(place=guarded[1]))
    assert refusal is not None
    assert said in refusal
    assert SECRET not in refusal


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock", "redis://nobody.invalid:6379/0"]
)
def test_a_redis_that_is_away_may_come(url: str) -> None:
    assert redis_refusal(url) is None


#: Each process that uses Redis, without the address of Redis.
PROCESSES: Mapping[str, Sequence[str]] = {
    "API": ["-m", "services.orchestrator.api", "--port=0"],
    "worker": ["-m", "services.orchestrator.worker", "--generator=h:1", '--vlms={"a": "h:2"}'],
    "keys": ["-m", "services.orchestrator.keys", "list"],
    "up": ["-m", "services.local", "--no-ui"],
}


@pytest.mark.parametrize("address", [f"redis://:x/{SECRET}@127.0.0.1:1/0", "wrong password"])
def test_every_process_ends_at_once_with_one_sentence(
    guarded: tuple[RedisServer, str], tmp_path: Path, address: str
) -> None:
    if address == "wrong password":
        address = f"redis://:{SECRET}@{guarded[1]}/0"
    outside = {name: value for name, value in os.environ.items() if "REDIS_URL" not in name}
    store = {"DUALPROCESS_ARTIFACTS": tmp_path.as_uri(), "DUALPROCESS_DATA": str(tmp_path)}
    started = {
        name: subprocess.Popen(
            [sys.executable, *command],
            env=outside | store | {"REDIS_URL": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, command in PROCESSES.items()
    }
    for name, process in started.items():
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 2, (name, said)
        assert len(said.splitlines()) == 1, (name, said)
        assert SECRET not in said, name
        assert "REDIS_URL" in said or "--redis-url" in said, (name, said)
