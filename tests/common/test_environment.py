"""Addresses and variables as people and clusters set them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from pydantic import ValidationError

from services.common.addresses import host_port
from services.common.channels import open_channel
from services.common.credentials import OPEN
from services.common.server import bind
from services.common.settings import GpuServiceSettings
from services.local.ports import is_free
from services.local.settings import LocalSettings
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.settings import KeySettings
from services.orchestrator.worker.settings import WorkerSettings


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs ::1 on this machine")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # Kubernetes sets this if there is a service called dualprocess.
        ("DUALPROCESS_PORT", "tcp://10.0.0.1:8000"),
        ("DUALPROCESS_PORT", "udp://10.0.0.1:8000"),
        ("DUALPROCESS_PORT", "tcp://[fd00::1]:8000"),
        ("dualprocess_port", "tcp://10.0.0.1:8000"),
        ("DUALPROCESS_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("DUALPROCESS_SERVICE_HOST", "10.0.0.1"),
        ("DUALPROCESS_SERVICE_PORT", "8000"),
        *[
            (f"DUALPROCESS_{setting}", value)
            for setting in ("PORT", "HOST", "REDIS_URL", "AUTH", "SLOTS", "LOG_LEVEL", "PRESETS")
            for value in ("", " ")
        ],
        ("DUALPROCESS_LLM_BASE_URL", ""),
        ("DUALPROCESS_WEBHOOK_PAUSES", ""),
        ("DUALPROCESS_WEBHOOK_SECRET", ""),
        ("REDIS_URL", ""),
    ],
)
def test_what_nobody_meant_as_a_setting_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    plain = [ApiSettings(), LocalSettings(), KeySettings()]
    monkeypatch.setenv(name, value)
    assert [ApiSettings(), LocalSettings(), KeySettings()] == plain


def test_an_empty_name_leaves_the_word_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALPROCESS_REDIS_URL", "")
    monkeypatch.setenv("REDIS_URL", "redis://10.0.0.1:6379/3")
    assert ApiSettings().redis_url == "redis://10.0.0.1:6379/3"
    assert LocalSettings().redis_url == "redis://10.0.0.1:6379/3"


@pytest.mark.parametrize("value", ["tcp:8000", "http://10.0.0.1:8000", "80 00"])
def test_another_text_for_a_port_is_still_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("DUALPROCESS_PORT", value)
    with pytest.raises(ValidationError):
        ApiSettings()


@pytest.mark.parametrize(
    ("host", "bare"),
    [("::1", "::1"), ("[::1]", "::1"), ("[::]", "::"), ("gpu-1", "gpu-1"), ("0.0.0.0", "0.0.0.0")],  # noqa: S104
)
def test_a_host_is_taken_with_brackets_and_without(host: str, bare: str) -> None:
    assert ApiSettings(host=host).host == bare
    assert GpuServiceSettings(preset="x", port=1, host=host).host == bare


@pytest.mark.parametrize(
    "host", ["http://127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "localhost/dp", "::1:8000:x"]
)
def test_what_is_no_host_alone_is_told_so(host: str) -> None:
    with pytest.raises(ValidationError, match="must be a host"):
        ApiSettings(host=host)


TARGETS = ["gpu-1:50051", "127.0.0.1:1", "[::1]:50051", "dns:///vlm:50052", "dns:vlm:50052"]
TARGETS += ["dns://1.1.1.1/[fd00::1]:5", "ipv6:[::1]:1,[::1]:2", "ipv4:10.0.0.1:1", "unix:/run/vlm"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_grpc_target_is_taken(target: str) -> None:
    settings = WorkerSettings(generator=target, vlms={"a": target})
    assert (settings.generator, settings.vlms) == (target, {"a": target})


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("::1:50051", "without brackets"),
        ("fd00::7:50051", "without brackets"),
        ("gpu-1", "must be host:port"),
        ("http://gpu-1:50051", "must be host:port"),
        ("gpu-1:50051/", "must be host:port"),
        (":50051", "must be host:port"),
        ("gpu-1:0", "write 1 to 65535"),
        ("gpu-1:65536", "write 1 to 65535"),
        ("gpu-1:" + "1" * 5000, "write 1 to 65535"),
        ("gpu-1:１", "write 1 to 65535"),
        ("dns:///gpu-1", "must be host:port"),
        ("", "must be host:port"),
    ],
)
def test_what_is_no_grpc_target_is_told_so(target: str, said: str) -> None:
    for given in ({"generator": target, "vlms": {}}, {"generator": "a:1", "vlms": {"a": target}}):
        with pytest.raises(ValidationError, match=said):
            WorkerSettings.model_validate(given)


@needs_ipv6
def test_a_taken_port_of_ipv6_is_seen() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        assert not is_free("::1", port)
        assert is_free("127.0.0.1", port)
    assert is_free("::1", port)
    assert LocalSettings(host="[::1]", port=port).url == f"http://[::1]:{port}"


@needs_ipv6
async def test_a_service_on_ipv6_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await _asked("::1")


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy", "ALL_PROXY"])
async def test_services_reach_each_other_past_the_environments_proxies(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert await _asked("127.0.0.1")


async def _asked(host: str) -> bool:
    server, port = bind(host_port(host, 0), OPEN)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    try:
        async with open_channel(host_port(host, port)) as channel, asyncio.timeout(20):
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), wait_for_ready=True
            )
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    except grpc.aio.AioRpcError:
        return False
    finally:
        await server.stop(None)


#: Faults that keep a process from starting: its command, its environment, its message.
FAULTS: list[tuple[list[str], dict[str, str], str]] = [
    (["services.local", "--data={file}"], {}, "--data (or DUALPROCESS_DATA): {file} can't be the"),
    (["services.local", "--data={file}/below"], {}, "--data (or DUALPROCESS_DATA): {file}/below"),
    (["services.local"], {"SSL_CERT_FILE": "/nowhere"}, "SSL_CERT_FILE names no file: /nowhere"),
    (["services.local", "--host=http://x"], {}, "--host (or DUALPROCESS_HOST): must be a host"),
    (
        ["services.orchestrator.api", "--artifacts=file://{file}"],
        {},
        "--artifacts (or DUALPROCESS_ARTIFACTS): can't be the folder",
    ),
    (
        ["services.orchestrator.api", "--artifacts=data/artifacts"],
        {},
        "--artifacts (or DUALPROCESS_ARTIFACTS): must be file:///folder",
    ),
    (
        ["services.orchestrator.api", "--llm-base-url=https://llm.example", "--llm-model=m"],
        {"DUALPROCESS_LLM_API_KEY": "topsecret\nx"},
        "the API key has a line break",
    ),
    (
        ["services.orchestrator.api", "--llm-base-url=https://llm.example", "--llm-model=m"],
        {"ALL_PROXY": "socks5://me:topsecret@127.0.0.1:9"},
        "names a SOCKS proxy",
    ),
    (
        ["services.orchestrator.worker", "--generator=a:1"],
        {"DUALPROCESS_VLMS": "idefics2=b:2"},
        "--vlms (or DUALPROCESS_VLMS): must be JSON",
    ),
]


def test_what_keeps_a_process_from_starting_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    outside = {
        name: value
        for name, value in os.environ.items()
        if "PROXY" not in name.upper() and not name.startswith("DUALPROCESS")
    }
    started = [
        (
            subprocess.Popen(
                [sys.executable, "-m", *(part.format(file=file) for part in command)],
                env=outside | variables,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ),
            said.format(file=file),
        )
        for command, variables, said in FAULTS
    ]
    for process, sentence in started:
        said, _ = process.communicate(timeout=150)
        assert process.returncode in (1, 2), said
        assert sentence in said
        assert len(said.splitlines()) == 1, said
        assert "topsecret" not in said
