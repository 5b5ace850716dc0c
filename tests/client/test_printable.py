"""What others wrote reaches no terminal with its control characters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dualprocess import Client
from dualprocess.cli import app, session
from dualprocess.schemas import ModelList
from services.common.presets import load_presets
from tests.client.test_client import JOB

#: Each with what is left of it on one line.
HOSTILE = [
    ("\x1b[31mred\x1b[0m", "[31mred[0m"),
    ("\x1b]0;title\x07here", "]0;titlehere"),
    ("\x1b]8;;http://x\x1b\\link", "]8;;http://x\\link"),
    ("\x9b2Jgone\x9d", "2Jgone"),
    ("a\rb\x08c\x7fd\x00e", "a bcde"),
    ("one\ntwo\u2028three\x85four\tfive", "one two three four five"),
    ("file\u202egnp.exe\u2066x\u2069", "filegnp.exex"),
    ("\u200fright\u061c", "right"),
    ("[red]no markup[/red]", "[red]no markup[/red]"),
]
#: What people of every script write, which stays.
PLAIN = ["größer", "赤い丸", "दायरा", "نص\u200cی", "👩\u200d🔬", "a\u00a0b", "→ ✓"]
ROWS = [*HOSTILE, *((text, text) for text in PLAIN)]

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command writes, with a service that answers so."""

    def run(handler: Handler, *arguments: str) -> str:
        def client(url: str, api_key: str | None) -> Client:
            return Client(url, api_key, transport=httpx.MockTransport(handler))

        monkeypatch.setattr(session, "Client", client)
        # Wide enough that no name is folded, whatever width the environment had at the import.
        for console in (session.stdout, session.stderr):
            monkeypatch.setattr(console, "width", 400)
        done = CliRunner().invoke(app, list(arguments))
        return done.stdout + done.stderr

    return run


def answering(**bodies: Any) -> Handler:
    """By the last part of the path; everything else is the job."""

    def handle(request: httpx.Request) -> httpx.Response:
        last = request.url.path.rpartition("/")[2]
        if last == "events":
            event = json.dumps({"type": "status", "status": "succeeded", "attempt": 1})
            sse = {"Content-Type": "text/event-stream"}
            return httpx.Response(200, headers=sse, text=f"id: 1-0\ndata: {event}\n\n")
        body = bodies.get(last, bodies.get("job", JOB))
        return httpx.Response(body.get("status", 200) if "title" in body else 200, json=body)

    return handle


def models(text: str) -> dict[str, Any]:
    preset = load_presets().generators["tiny-flux"].model_dump(mode="json")
    generator = {name: preset[name] for name in ("image", "lora", "optimizer", "guard", "eval")}
    about = {"name": text, "family": "x", "model": text, "live_workers": 1}
    vlm = about | {"writes": True}
    listed = {"generators": [about | generator], "vlms": [vlm], "writer": text}
    return ModelList.model_validate(listed).model_dump(mode="json")


def named(text: str) -> dict[str, Any]:
    return JOB | {"name": text}


def said(text: str, kind: str, result: dict[str, Any]) -> dict[str, Any]:
    return JOB | {"kind": kind, "error": text, "waiting_for": text, "result": result}


COMMANDS: dict[str, tuple[list[str], Callable[[str], Handler]]] = {
    "list": (["list"], lambda text: answering(jobs={"jobs": [named(text)]})),
    "a list of prompts": (
        ["list"],
        lambda text: answering(jobs={"jobs": [JOB | {"spec": JOB["spec"] | {"prompt": text}}]}),
    ),
    "watch": (["watch", "0" * 26], lambda text: answering(job=named(text))),
    "an error": (["show", "0" * 26], lambda text: answering(job=JOB | {"error": text})),
    "waiting": (["show", "0" * 26], lambda text: answering(job=JOB | {"waiting_for": text})),
    "answers": (
        ["show", "0" * 26],
        lambda text: answering(job=said(text, "answers", {"answers": [text]})),
    ),
    "models": (["models"], lambda text: answering(models=models(text))),
    "a problem": (
        ["show", "0" * 26],
        lambda text: answering(job={"title": text, "status": 404, "detail": text}),
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_lets_others_speak_to_the_terminal(
    told: Callable[..., str], command: str
) -> None:
    arguments, handler = COMMANDS[command]
    for text, left in ROWS:
        written = told(handler(text), *arguments)
        assert not set(written) & set("\x00\x07\x08\x1b\x7f\x85\x9b\x9d\u2028\u202e\u2066\u061c")
        assert left in written.replace("\n", " "), written


def test_batch_says_no_name_as_it_came(
    told: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = {"title": "\x1b[2Jno", "status": 422, "errors": [{"field": "a", "message": "\x9b"}]}
    data = {"spec": {"questions": [{"question": "a", "answer": "b"}], "generator": "x", "vlm": "y"}}
    (tmp_path / "set.json").write_text(json.dumps(data | {"prompts": ["\x1b]0;x\x07"]}))
    written = told(answering(batches=refused), "batch", "set.json")
    assert "[2Jno" in written
    assert not set(written) & set("\x1b\x07\x9b")
