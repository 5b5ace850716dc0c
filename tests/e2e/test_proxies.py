"""A service on one machine, where the environment names proxies that lead nowhere."""

from __future__ import annotations

import os

import pytest

from dualprocess import Client
from tests.e2e.conftest import red_circle
from tests.e2e.proxies import leading_nowhere
from tests.e2e.stack import Stack


def test_a_stack_and_its_client_do_a_job_past_any_proxy(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ALL_PROXY" in stack.supervisor.environ()
    with leading_nowhere() as environment:
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with Client(stack.url) as client:
            job = client.wait(client.submit(red_circle(steps=1)).id)
            assert job.scores.lora is not None
