"""Keys: stored as hashes, checked on every request, made and revoked by the command line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from dualprocess import Client as Sdk
from dualprocess import Unauthorized
from services.local.ports import free_port
from services.orchestrator.api.auth import OPEN_PATHS
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer

COMMAND = str(Path(sys.executable).with_name("dualprocess"))


def run(redis_server: RedisServer | None, *arguments: str, **environment: str) -> Any:
    outside = {name: value for name, value in os.environ.items() if "REDIS_URL" not in name}
    if redis_server:
        outside["REDIS_URL"] = redis_server.url
    return subprocess.run(
        [COMMAND, *arguments],
        env=outside | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def created(redis_server: RedisServer, *flags: str) -> str:
    done = run(redis_server, "keys", "create", "--name", "a person's", *flags)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


async def stored(redis: Client) -> AsyncIterator[str]:
    """Every name and value in Redis."""
    read = {
        "string": redis.get,
        "hash": redis.hgetall,
        "set": redis.smembers,
        "list": lambda name: redis.lrange(name, 0, -1),
        "zset": lambda name: redis.zrange(name, 0, -1, withscores=True),
        "stream": redis.xrange,
    }
    async for name in redis.scan_iter():
        yield f"{name} {await read[await redis.type(name)](name)}"


async def test_only_the_hash_of_a_key_is_stored(guarded: Guarded, redis: Client) -> None:
    key = await guarded.key()
    await guarded.with_key(key).submit()
    _, key_id, secret = key.split("_")
    entries = [entry async for entry in stored(redis)]
    assert any(key_id in entry and "sha256" in entry for entry in entries)
    assert not any(secret in entry for entry in entries)


async def test_a_revoked_key_opens_nothing_from_then_on(guarded: Guarded) -> None:
    key = await guarded.key()
    api = guarded.with_key(key)
    await api.submit()
    assert await guarded.keys.revoke(key.split("_")[1])
    answer = await api.http.get("/v1/jobs")
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert "was revoked" in answer.json()["title"]


async def test_a_revoked_keys_event_stream_ends(guarded: Guarded) -> None:
    key = await guarded.key()
    api = guarded.with_key(key)
    job = await api.submit()
    stream = asyncio.create_task(api.http.get(f"/v1/jobs/{job.id}/events"))
    await asyncio.sleep(0.2)
    await guarded.keys.revoke(key.split("_")[1])
    async with asyncio.timeout(15):
        assert (await stream).text.count("event: status") == 1


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer dp_", "Bearer dp_0_0", "{key}"],
)
async def test_what_is_no_key_is_refused(guarded: Guarded, authorization: str) -> None:
    key = await guarded.key()
    headers = {"Authorization": authorization.format(key=key)}
    answer = await guarded.with_key(None).http.get("/v1/jobs", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith('Bearer realm="dualprocess"')
    assert "Authorization" in answer.json()["detail"]


async def test_the_right_id_with_another_secret_is_refused(guarded: Guarded) -> None:
    mine, other = await guarded.key(), await guarded.key()
    mixed = "_".join([*mine.split("_")[:2], other.split("_")[2]])
    for forged in (mixed, mine[:-1], mine + "0", mine.upper()):
        answer = await guarded.with_key(forged).http.get("/v1/jobs")
        assert answer.status_code == 401
        assert "unknown" in answer.json()["title"]


async def test_a_body_without_a_key_is_not_even_read(guarded: Guarded) -> None:
    async def body() -> AsyncIterator[bytes]:
        pytest.fail("was read")
        yield b""

    answer = await guarded.with_key(None).http.post("/v1/jobs", content=body())
    assert answer.status_code == 401


READING = [("GET", "/v1/jobs"), ("GET", "/v1/models"), ("GET", "/v1/jobs/{id}")]
SUBMITTING = [("POST", "/v1/jobs"), ("POST", "/v1/jobs/{id}/cancel")]
WATCHING = [("GET", "/metrics")]


@pytest.mark.parametrize(
    ("scopes", "opens"),
    [
        (["read"], READING),
        (["submit"], SUBMITTING),
        (["submit", "read"], SUBMITTING + READING),
        (["admin"], SUBMITTING + READING + WATCHING),
    ],
    ids=["read", "submit", "both", "admin"],
)
async def test_a_key_opens_what_its_scopes_say(
    guarded: Guarded, scopes: list[str], opens: list[tuple[str, str]]
) -> None:
    api = await guarded.owner(*scopes)
    for method, path in SUBMITTING + READING + WATCHING:
        body = SPEC if (method, path) == ("POST", "/v1/jobs") else None
        answer = await api.http.request(method, path.format(id="0" * 26), json=body)
        if (method, path) in opens:
            wanted = (200, 202) if "{id}" not in path else (404,)
            assert answer.status_code in wanted, f"{method} {path}: {answer.text}"
            continue
        needed = next(
            scope
            for scope, doors in (("submit", SUBMITTING), ("read", READING), ("admin", WATCHING))
            if (method, path) in doors
        )
        assert answer.status_code == 403, f"{method} {path}"
        assert answer.json()["title"] == f"The API key lacks the scope {needed}"
        assert f'scope="{needed}"' in answer.headers["www-authenticate"]


async def test_what_watches_the_service_needs_no_key(guarded: Guarded) -> None:
    nobody = guarded.with_key(None)
    for path in OPEN_PATHS:
        assert (await nobody.http.get(path)).status_code == 200, path
    assert (await nobody.http.get("/readyz?worker=true")).status_code == 503


async def test_the_contract_says_how_to_send_a_key(guarded: Guarded) -> None:
    document = (await guarded.with_key(None).http.get("/openapi.json")).json()
    (scheme,) = document["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


async def test_idempotency_keys_are_an_owners_own(guarded: Guarded) -> None:
    headers = {"Idempotency-Key": "the same"}
    one, two = await guarded.owner(), await guarded.owner()
    ids = [
        (await api.http.post("/v1/jobs", json=SPEC, headers=headers)).json()["id"]
        for api in (one, two, one)
    ]
    assert ids[0] == ids[2] != ids[1]


async def test_metrics_count_jobs_by_status(guarded: Guarded, site: Site) -> None:
    admin, owner = await guarded.owner("admin"), await guarded.owner()
    cancelled = await owner.submit()
    await owner.http.post(f"/v1/jobs/{cancelled.id}/cancel")
    done = await owner.submit()
    site.start_worker()
    await owner.ended(done.id)
    text = (await admin.http.get("/metrics")).text
    for status, count in (("queued", 0), ("running", 0), ("succeeded", 1), ("cancelled", 1)):
        assert f'dualprocess_jobs{{status="{status}"}} {count}.0' in text


async def test_metrics_say_of_each_queue_what_waits_and_what_runs(
    guarded: Guarded, site: Site, generator: ScriptedGenerator
) -> None:
    admin, owner = await guarded.owner("admin"), await guarded.owner()

    async def told() -> dict[str, float]:
        text = (await admin.http.get("/metrics")).text
        labels = 'generator="tiny-flux",vlms="tiny-idefics2"'
        found = re.findall(rf"^dualprocess_queue_(\w+){{{labels}}} (\S+)$", text, re.MULTILINE)
        return {name: float(count) for name, count in found}

    assert await told() == {}
    generator.go.clear()
    jobs = [await owner.submit() for _ in range(2)]
    assert await told() == {"depth": 2, "running": 0}
    site.start_worker(slots=1)
    await owner.until(jobs[0].id, lambda job: job.step == 1)
    assert await told() == {"depth": 1, "running": 1}
    generator.go.set()
    for job in jobs:
        await owner.ended(job.id)
    assert await told() == {"depth": 0, "running": 0}


def test_keys_are_made_listed_and_revoked_by_the_command_line(
    redis_server: RedisServer,
) -> None:
    key = created(
        redis_server, "--scope", "submit", "--scope", "read", "--queued", "5", "--work", "12000"
    )
    prefix, key_id, secret = key.split("_")
    assert prefix == "dp"
    shown = run(redis_server, "keys", "list").stdout
    line = next(line for line in shown.splitlines() if key_id in line)
    assert "read submit" in line
    assert "12,000" in line
    listed = run(redis_server, "keys", "list", "--json").stdout
    (told,) = [one for one in json.loads(listed) if one["id"] == key_id]
    assert (set(told["scopes"]), told["quotas"]["queued"]) == ({"submit", "read"}, 5)
    assert told["quotas"]["work"] == 12000
    assert secret not in shown + listed
    revoked = run(redis_server, "keys", "revoke", key_id, "--json")
    assert json.loads(revoked.stdout) == {"id": key_id, "revoked": True}
    unknown = run(redis_server, "keys", "revoke", "nobody")
    assert unknown.returncode == 2
    assert "there is no key nobody" in unknown.stderr


def test_a_key_without_a_scope_is_not_made(redis_server: RedisServer) -> None:
    done = run(redis_server, "keys", "create", "--name", "useless")
    assert done.returncode == 2
    assert "--scope" in done.stderr


def test_keys_go_to_the_stack_whose_folder_is_named(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """`dualprocess up` has a new port for its Redis at each start, and writes it to this file."""
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "url").write_text(redis_server.url)
    flags = ["--data", str(tmp_path), "create", "--name", "me", "--scope", "read", "--json"]
    done = run(None, "keys", *flags)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["key"].startswith(f"dp_{made['id']}_")


def test_without_redis_the_command_says_so(tmp_path: Path) -> None:
    done = run(RedisServer(tmp_path), "keys", "list")
    assert done.returncode == 3
    assert "Redis does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    wrong = run(None, "keys", "list", "--redis-url", "localhost:6379")
    assert wrong.returncode == 2
    assert "redis://" in wrong.stderr


def _command(redis_server: RedisServer, tmp_path: Path, *flags: str) -> list[str]:
    store = [f"--redis-url={redis_server.url}", f"--artifacts={(tmp_path / 'a').as_uri()}"]
    return [sys.executable, "-m", "services.orchestrator.api", *store, *flags]


@contextmanager
def serving(redis_server: RedisServer, tmp_path: Path, *flags: str) -> Iterator[str]:
    """The API in a process of its own."""
    port = free_port()
    process = subprocess.Popen(_command(redis_server, tmp_path, f"--port={port}", *flags))
    url = f"http://127.0.0.1:{port}"
    try:
        # Gradio takes long to import on a busy machine.
        end = time.monotonic() + 180
        while not _answers(url):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "example.org"])  # noqa: S104
def test_the_api_does_not_open_itself_to_others_without_keys(
    redis_server: RedisServer, tmp_path: Path, host: str
) -> None:
    done = subprocess.run(
        _command(redis_server, tmp_path, f"--host={host}", "--port=0"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for remedy in (f"--host {host}", "--auth", "--insecure", "dualprocess keys create"):
        assert remedy in done.stderr


def test_it_opens_itself_when_that_is_what_is_wanted(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    with serving(redis_server, tmp_path, "--host=0.0.0.0", "--insecure") as url:
        assert httpx.get(f"{url}/v1/jobs").status_code == 200


def test_the_client_and_the_command_line_carry_a_key(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    key = created(redis_server, "--scope", "read")
    with serving(redis_server, tmp_path, "--host=0.0.0.0", "--auth") as url:
        with Sdk(url, key) as client:
            assert client.models().generators
        with Sdk(url) as client, pytest.raises(Unauthorized, match="DUALPROCESS_API_KEY"):
            client.models()
        assert run(redis_server, "models", "--url", url, "--api-key", key).returncode == 0
        assert run(redis_server, "list", "--url", url, DUALPROCESS_API_KEY=key).returncode == 0
        refused = run(redis_server, "list", "--url", url)
        assert refused.returncode == 2
        assert "The request carries no API key" in refused.stderr
        lacking = run(redis_server, "cancel", "0" * 26, "--url", url, "--api-key", key)
        assert lacking.returncode == 2
        assert "lacks the scope submit" in lacking.stderr
