"""`dualprocess doctor`: what is wrong, what to do, and an exit code for scripts."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from typer.testing import CliRunner, Result

from dualprocess.v1 import generator_pb2_grpc
from services.common.credentials import Credentials
from services.common.server import bind
from services.orchestrator.doctor.__main__ import app
from services.orchestrator.doctor.stores import of_disk
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer

TINY = ("--preset=tiny-flux", "--preset=tiny-idefics2")


@pytest.fixture(autouse=True)
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own: with NVIDIA's program only where a test puts it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    return folder


@pytest.fixture
def stores(redis: Client, redis_server: RedisServer, artifacts: str) -> list[str]:
    """Redis is empty: what lives of an earlier test would be told, too."""
    return [f"--redis-url={redis_server.url}", f"--artifacts={artifacts}"]


async def doctor(*arguments: str, **environment: str) -> tuple[Result, list[dict[str, str]]]:
    outside = {name: None for name in os.environ if name.startswith("DUALPROCESS_")}
    runner = CliRunner(env={**outside, "REDIS_URL": None, **environment})
    done = await asyncio.to_thread(runner.invoke, app, [*arguments, "--json"])
    assert done.exit_code in (0, 1), done.output
    return done, json.loads(done.stdout)


def about(found: list[dict[str, str]], what: str, level: str) -> str:
    return "\n".join(
        f"{one['said']} → {one['remedy']}"
        for one in found
        if (one["what"], one["level"]) == (what, level)
    )


async def test_what_is_as_it_must_be_ends_with_0(stores: list[str], tmp_path: Path) -> None:
    done, found = await doctor(*stores, *TINY)
    assert done.exit_code == 0, done.output
    assert {one["what"] for one in found} == {
        *("redis", "clock", "workers", "artifacts", "disk", "tls", "presets", "gpu")
    }
    assert not (tmp_path / "artifacts").exists(), "a look makes nothing"
    (tmp_path / "artifacts" / "jobs").mkdir(parents=True)
    _, found = await doctor(*stores, *TINY)
    assert "takes files and returns them" in about(found, "artifacts", "ok")
    assert list((tmp_path / "artifacts").rglob("*")) == [tmp_path / "artifacts" / "jobs"]


async def test_people_read_lines_with_what_to_do(stores: list[str]) -> None:
    runner = CliRunner()
    done = await asyncio.to_thread(runner.invoke, app, [*stores, "--preset=nothing"])
    assert done.exit_code == 1
    assert "problem  presets    --preset: 'nothing' is unknown: choose from flux-dev" in done.stdout
    assert "→ correct it, or give another --preset" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 problems, ")


async def test_live_workers_are_told(stores: list[str], site: Site) -> None:
    site.start_worker()
    async with asyncio.timeout(10):
        while True:
            _, found = await doctor(*stores, *TINY)
            if told := about(found, "workers", "ok"):
                break
    assert told.startswith("1: tiny-flux with tiny-idefics2")


async def test_a_redis_that_is_away_or_loses_jobs_is_a_problem(
    artifacts: str, tmp_path: Path
) -> None:
    careless = RedisServer(
        tmp_path, options=["--appendonly", "no", "--maxmemory-policy", "noeviction"]
    )
    careless.start()
    try:
        done, found = await doctor(f"--redis-url={careless.url}", f"--artifacts={artifacts}")
    finally:
        careless.stop()
    assert done.exit_code == 1
    assert "writes no append-only file" in about(found, "redis", "problem")
    assert "→ set appendonly to yes" in about(found, "redis", "problem").replace("\n", " ")
    done, found = await doctor(REDIS_URL=careless.url, DUALPROCESS_ARTIFACTS=artifacts)
    assert done.exit_code == 1
    assert "does not answer → name the service's own" in about(found, "redis", "problem")


async def test_a_store_that_takes_nothing_is_a_problem(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done, found = await doctor(
        f"--redis-url={redis_server.url}", f"--artifacts={(tmp_path / 'file').as_uri()}"
    )
    assert done.exit_code == 1
    assert "can't be the folder" in about(found, "artifacts", "problem")


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path) -> None:
    finding = of_disk(tmp_path / "not" / "there", "for weights", 2**60)
    assert finding.level == "problem"
    assert "GiB are still to be downloaded" in finding.said


@pytest.fixture
async def guarded() -> AsyncIterator[str]:
    """A generator that asks for a token."""
    server, port = bind("127.0.0.1:0", Credentials(token="open sesame"))
    generator_pb2_grpc.add_GeneratorServicer_to_server(ScriptedGenerator(), server)
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_each_endpoint_is_asked_by_itself(stores: list[str], guarded: str) -> None:
    both = f"ipv4:{guarded},127.0.0.1:1"
    done, found = await doctor(*stores, f"--endpoint={both}", DUALPROCESS_GRPC_TOKEN="open sesame")
    assert done.exit_code == 1
    assert f"ipv4:{guarded} serves tiny-flux" in about(found, "endpoint", "ok")
    assert "ipv4:127.0.0.1:1: UNAVAILABLE" in about(found, "endpoint", "problem")
    _, found = await doctor(*stores, f"--endpoint={guarded}", DUALPROCESS_GRPC_TOKEN="another")
    assert "the same DUALPROCESS_GRPC_TOKEN" in about(found, "endpoint", "problem")
    worker = {"DUALPROCESS_GENERATOR": guarded, "DUALPROCESS_VLMS": f'{{"a": "{guarded}"}}'}
    _, found = await doctor(*stores, DUALPROCESS_GRPC_TOKEN="open sesame", **worker)
    assert about(found, "endpoint", "ok").count("serves") == 2


@pytest.fixture
def told() -> Iterator[str]:
    """An address that answers as an API whose Redis may lose jobs."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"ok\nRedis writes no append-only file")

        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_api_is_asked_where_it_is_named(stores: list[str], told: str) -> None:
    _, found = await doctor(*stores, *TINY, f"--url={told}")
    assert "answers ok" in about(found, "api", "ok")
    assert "writes no append-only file" in about(found, "api", "warning")
    done, found = await doctor(*stores, *TINY, f"--url={told}/elsewhere")
    assert (done.exit_code, "answers 404" in about(found, "api", "problem")) == (1, True)


@pytest.mark.parametrize(
    ("days", "level", "sentence"),
    [
        (90, "ok", "for 90 more days"),
        (3, "warning", "→ issue a new one"),
        (-1, "problem", "certificate has expired"),
    ],
)
async def test_certificates_are_tried_before_they_run_out(
    stores: list[str], tmp_path: Path, days: int, level: str, sentence: str
) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    now = datetime.datetime.now(datetime.UTC)
    leaf = authority.issue_cert(
        "vlm",
        not_before=now - datetime.timedelta(days=30),
        not_after=now + datetime.timedelta(days=days, hours=1),
    )
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(ca))
    files = {"CERT": cert, "KEY": key, "CA": ca}
    environment = {f"DUALPROCESS_TLS_{name}": str(path) for name, path in files.items()}
    _, found = await doctor(*stores, *TINY, **environment)
    assert sentence in about(found, "tls", level)
    stranger.cert_pem.write_to_path(str(ca))
    done, found = await doctor(*stores, *TINY, **environment)
    assert (done.exit_code, "is not accepted by" in about(found, "tls", "problem")) == (1, True)


async def test_weights_that_nobody_pinned_are_told(stores: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "vlms"
    folder.mkdir()
    text = "family: idefics2\nmodel: somebody/a-model\ndtype: bfloat16\nchat: '{image}{question}'\n"
    (folder / "mine.yaml").write_text(text)
    for revision, sentence in (("", "no revision"), ("revision: main\n", "the revision main")):
        (folder / "mine.yaml").write_text(text + revision)
        _, found = await doctor(*stores, f"--presets={tmp_path}")
        assert f"mine has {sentence}" in about(found, "presets", "warning")
    (folder / "mine.yaml").write_text(text + f"revision: {'a' * 40}\n")
    _, found = await doctor(*stores, f"--presets={tmp_path}")
    assert about(found, "presets", "warning") == ""


async def test_a_gpu_is_held_against_what_a_preset_needs(
    stores: list[str], no_driver: Path
) -> None:
    asked = (*stores, "--preset=flux-schnell", "--preset=smolvlm2")
    done, found = await doctor(*asked)
    assert done.exit_code == 1
    assert "flux-schnell, smolvlm2 can't run without one" in about(found, "gpu", "problem")

    program = no_driver / "nvidia-smi"

    async def with_gpu(total: int, free: int) -> list[dict[str, str]]:
        program.write_text(f"#!/bin/sh\necho '0, GPU-1, A card, {total}, {free}, 570.1'\n")
        program.chmod(0o755)
        return (await doctor(*asked))[1]

    found = await with_gpu(16384, 16000)
    assert "0: A card, 16 of 16 GiB free, driver 570.1" in about(found, "gpu", "ok")
    assert "flux-schnell needs about 20 GiB" in about(found, "memory", "problem")
    (told,) = (one for one in found if (one["what"], one["level"]) == ("memory", "problem"))
    assert told["remedy"] == "write memory lean, quantize int8, or use a larger GPU"
    assert "smolvlm2 needs about 6 GiB" in about(found, "memory", "ok")
    found = await with_gpu(81920, 6000)
    assert "GPU 0 has that much, but it is in use" in about(found, "memory", "warning")
    found = await with_gpu(81920, 80000)
    assert about(found, "memory", "ok").count("GPU 0 has that much free") == 2
