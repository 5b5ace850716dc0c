"""Where a process shows its metrics."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx
import pytest

from services.common.metrics import show_metrics
from services.common.settings import GrpcSettings
from tests.redis_server import free_port


def test_metrics_are_shown_on_loopback_where_a_port_is_given() -> None:
    port = free_port()
    show_metrics(GrpcSettings(metrics_port=port))
    assert "process_resident_memory_bytes" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    listening = [line.split()[1] for line in _tcp() if line.split()[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]


def _tcp() -> list[str]:
    """Linux's list of who listens on IPv4, by address in hexadecimal."""
    with open("/proc/net/tcp", encoding="ascii") as listed:
        return [line for line in listed.read().splitlines()[1:] if line.split()[3] == "0A"]


def test_no_port_means_no_server() -> None:
    code = (
        "import threading; from services.common.metrics import show_metrics;"
        "from services.common.settings import GrpcSettings;"
        "show_metrics(GrpcSettings()); print(threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout == "1\n", done.stderr


def test_a_port_that_is_taken_is_named_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            show_metrics(GrpcSettings(metrics_port=port))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "--metrics-port (or DUALPROCESS_METRICS_PORT): can't listen on 127.0.0.1"
    )
    assert "choose another" in said
