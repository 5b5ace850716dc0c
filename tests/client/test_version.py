"""Which version is here, and which answers."""

from __future__ import annotations

import json
from importlib.metadata import version

import httpx
import pytest
from typer.testing import CliRunner, Result

from dualprocess import Client, __version__
from dualprocess.cli import app, session


def asked(monkeypatch: pytest.MonkeyPatch, answer: httpx.Response, *flags: str) -> Result:
    def client(url: str, api_key: str | None) -> Client:
        return Client(url, api_key, transport=httpx.MockTransport(lambda _: answer))

    monkeypatch.setattr(session, "Client", client)
    return CliRunner().invoke(app, ["version", *flags])


def test_the_clients_version_needs_no_service() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"dualprocess {version('dualprocess')}\n")
    assert __version__ == version("dualprocess")


def test_the_services_version_is_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asked(monkeypatch, httpx.Response(200, json={"version": "7.8.9"}))
    assert told.stdout == f"client:  {__version__}\nservice: 7.8.9\n"
    told = asked(monkeypatch, httpx.Response(200, json={"version": "7.8.9"}), "--json")
    assert json.loads(told.stdout) == {"client": __version__, "service": "7.8.9", "error": None}


def test_an_old_service_or_none_is_told_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    told = asked(monkeypatch, httpx.Response(404))
    assert (told.exit_code, "too old" in told.stdout) == (0, True)
    monkeypatch.undo()
    told = CliRunner().invoke(app, ["version", "--url", "http://127.0.0.1:9"])
    assert (told.exit_code, "nobody answers" in told.stdout) == (0, True)


def test_help_has_both() -> None:
    told = CliRunner().invoke(app, ["--help"])
    assert "--version" in told.stdout
    assert "Teach an image generator" in told.stdout
    assert CliRunner().invoke(app, []).stdout.strip() == told.stdout.strip()
