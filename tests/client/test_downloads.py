"""Files land in the folder that was asked for, whatever a service calls them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dualprocess import Client
from dualprocess.cli import app, session
from tests.client.test_client import JOB

ID = "0" * 26


def pulled(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """`dualprocess pull` of a job with one file of this name: its exit code and output."""
    file = {"name": name, "media_type": "text/plain", "bytes": 5, "sha256": "0" * 64}

    def handle(request: httpx.Request) -> httpx.Response:
        if "/artifacts/" in request.url.path:
            return httpx.Response(200, content=b"bytes")
        return httpx.Response(200, json=JOB | {"status": "succeeded", "artifacts": [file]})

    def client(url: str, api_key: str | None) -> Client:
        return Client(url, api_key, transport=httpx.MockTransport(handle))

    monkeypatch.setattr(session, "Client", client)
    done = CliRunner().invoke(app, ["pull", ID, "--to", str(folder / "into")])
    return done.exit_code, done.stdout + done.stderr


def test_a_file_lands_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _ = pulled("lora-0.png", tmp_path, monkeypatch)
    assert code == 0
    assert (tmp_path / "into" / "lora-0.png").read_bytes() == b"bytes"


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/etc/out", "..", ".", "", "a\\..\\out", "C:out", "a\0b"]
)
def test_a_name_that_leads_elsewhere_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = pulled(name, tmp_path, monkeypatch)
    assert code == 1
    assert "which is no plain file name" in said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
