"""A stack on one machine, where the environment names proxies that lead nowhere."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dualprocess import Client
from tests.e2e.conftest import red_circle
from tests.e2e.stack import running


def test_a_stack_starts_and_does_a_job_past_any_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # One accepts connections and never answers, the others refuse them.
        for name in ("http_proxy", "HTTPS_PROXY", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        for name in ("https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with running(tmp_path) as stack, Client(stack.url) as client:
            job = client.wait(client.submit(red_circle(steps=1)).id)
            assert job.scores.lora is not None
