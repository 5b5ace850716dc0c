"""What `dualprocess mcp` refuses before it serves."""

from __future__ import annotations

import httpx
import pytest
from typer.testing import CliRunner, Result

from dualprocess import Client
from dualprocess.cli import app, session


def served(monkeypatch: pytest.MonkeyPatch, service: httpx.MockTransport) -> Result:
    def client(url: str, api_key: str | None) -> Client:
        return Client(url, api_key, transport=service)

    monkeypatch.setattr(session, "Client", client)
    monkeypatch.setenv("DUALPROCESS_API_KEY", "dp_of_this_process")
    flags = ["mcp", "--http", "--host", "::", "--url", "http://me:secret@service"]
    return CliRunner().invoke(app, flags)


def test_other_machines_are_let_in_only_where_the_service_asks_for_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"generators": [], "vlms": [], "writer": None})

    refused = served(monkeypatch, httpx.MockTransport(answer))
    assert refused.exit_code == 2
    assert "--auth" in refused.stderr
    assert "secret" not in refused.stderr
    # The user and password of the address; never the key of this process.
    (key,) = keys
    assert key is not None
    assert key.startswith("Basic ")


def test_an_address_that_cannot_be_one_is_refused_at_once() -> None:
    refused = CliRunner().invoke(app, ["mcp", "--url", "service:8000"])
    assert (refused.exit_code, "service:8000" in refused.stderr) == (2, True)
