"""What `dualprocess mcp` refuses before it serves."""

from __future__ import annotations

import httpx
import pytest
from typer.testing import CliRunner

from dualprocess import Client
from dualprocess.cli import app, session


@pytest.mark.parametrize("host", ["::", "0.0.0.0", "192.0.2.1"])  # noqa: S104
def test_other_machines_are_let_in_only_where_the_service_asks_for_keys(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    keys: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"generators": [], "vlms": [], "writer": None})

    def client(url: str, api_key: str | None) -> Client:
        return Client(url, api_key, transport=httpx.MockTransport(answer))

    monkeypatch.setattr(session, "Client", client)
    # With a key it would not be seen that the service asks for none.
    monkeypatch.setenv("DUALPROCESS_API_KEY", "dp_of_this_process")
    flags = ["mcp", "--http", "--host", host, "--url", "http://service"]
    refused = CliRunner().invoke(app, flags)
    assert refused.exit_code == 2
    assert "--auth" in refused.stderr
    assert keys == [None]


def test_an_address_that_cannot_be_one_is_refused_at_once() -> None:
    refused = CliRunner().invoke(app, ["mcp", "--url", "service:8000"])
    assert (refused.exit_code, "service:8000" in refused.stderr) == (2, True)
