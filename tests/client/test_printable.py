"""Texts of others reach no terminal with control characters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from dualprocess import Client, Job, JobFailed, JobNotReady, NotFound
from dualprocess.cli import app, session
from dualprocess.schemas import ModelList
from services.common.presets import load_presets
from tests.client.test_client import JOB

#: Each with its printable form on one line.
HOSTILE = [
    ("\x1b[31mred\x1b[0m", "[31mred[0m"),
    ("\x1b]0;title\x07here", "]0;titlehere"),
    ("\x1b]8;;http://x\x1b\\link", "]8;;http://x\\link"),
    ("\x9b2Jgone\x9d", "2Jgone"),
    ("a\rb\x08c\x7fd\x00e", "a bcde"),
    ("one\ntwo\u2028three\x85four\tfive", "one two three four five"),
    ("file\u202egnp.exe\u2066x\u2069", "filegnp.exex"),
    ("\u200fright\u061c", "right"),
    ("zero\u200bwidth\ufeff\u2060\u00ad", "zerowidth"),
    ("tagged\U000e0041\U000e007f", "tagged"),
    ("[red]no markup[/red]", "[red]no markup[/red]"),
]
#: Texts in several scripts, which must stay.
PLAIN = ["größer", "赤い丸", "दायरा", "نص\u200cی", "👩\u200d🔬", "a\u00a0b", "→ ✓"]
ROWS = [*HOSTILE, *((text, text) for text in PLAIN)]

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The output of a command with a service that answers this."""

    def run(handler: Handler, *arguments: str) -> str:
        def client(url: str, api_key: str | None) -> Client:
            return Client(url, api_key, transport=httpx.MockTransport(handler))

        monkeypatch.setattr(session, "Client", client)
        # Wide enough that no name is folded, whatever width the environment had at the import.
        for console in (session.stdout, session.stderr):
            monkeypatch.setattr(console, "width", 400)
        done = CliRunner().invoke(app, list(arguments))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.stdout + done.stderr

    return run


def answering(**bodies: Any) -> Handler:
    """Answers by the last part of the path; every other path is the job."""

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


#: All of them in one text, to find output that is not cleaned.
ALL = "".join(text for text, _ in HOSTILE) + "\x1b[2J"
ID = "0" * 26
#: Every command that asks a service, with its arguments.
WALK: dict[str, list[list[str]]] = {
    "submit": [
        ["job.json"],
        ["job.json", "--wait"],
        ["job.json", "--watch"],
        ["job.json", "--dry-run"],
        ["job.json", "--look"],
    ],
    "batch": [
        ["set.json", "--out", "out", "--watch"],
        ["set.json", "--out", "halved", "--watch", "--halve"],
    ],
    "list": [[]],
    "show": [[ID]],
    "watch": [[ID]],
    "cancel": [[ID]],
    "delete": [[ALL]],
    "pull": [[ID, "--to", ALL.replace("/", "")], [ID, "--as", "peft"]],
    "push": [[ID, ALL]],
    "generate": [["a", "--to", ALL.replace("/", "")]],
    "questions": [["a"]],
    "expand": [["a"]],
    "ask": [["picture.png"]],
    "models": [[]],
    "version": [[]],
    "track": [[ID, "--to", "mlflow"]],
}
#: These are tested in ``tests/local``, ``tests/orchestrator``, ``tests/generator`` and
#: ``tests/e2e``.
NO_CLIENTS = {"up", "keys", "backup", "restore", "doctor", "fit", "mcp"}


def is_printable(text: str) -> bool:
    """Whether a terminal would show all of it, and obey nothing."""
    return all(letter.isprintable() or letter in "\n\u00a0\u200c\u200d" for letter in text)


def test_every_command_is_walked() -> None:
    commands = {
        one.name or one.callback.__name__ for one in app.registered_commands if one.callback
    }
    assert commands == WALK.keys() | NO_CLIENTS


def hostile(request: httpx.Request) -> httpx.Response:
    """A service that has ``ALL`` in every place for words."""
    path = request.url.path
    draft = {"question": ALL, "answer": ALL, "on_drawing": False}
    spec = JOB["spec"] | {"prompt": ALL, "questions": [{"question": ALL, "answer": ALL}]}
    job = JOB | {
        "spec": spec,
        "name": ALL,
        "error": ALL,
        "waiting_for": ALL,
        "stopped_because": ALL,
        "warnings": [ALL],
        "causes": [ALL],
        "base": {"vlm": ALL, "images": 2, "probability": 0.5, "best": 0.9, "advice": ALL},
        "artifacts": [{"name": ALL.replace("/", ""), "media_type": ALL, "bytes": 1, "sha256": ALL}],
    }
    if path.endswith("/events"):
        told = [
            {"type": "status", "status": "running", "attempt": 1, "waiting_for": ALL},
            {"type": "skipped", "attempt": 1, "step": 1, "steps": 2, "reason": ALL},
            {"type": "warning", "message": ALL},
            {"type": "status", "status": "failed", "attempt": 1, "error": ALL},
        ]
        text = "".join(f"id: {n}-0\ndata: {json.dumps(one)}\n\n" for n, one in enumerate(told))
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)
    if "dry_run" in request.url.params:
        dry = {
            "jobs": 1,
            "work": 2.5,
            "parts": {"training": 2.5},
            "refused": {"title": ALL, "status": 429, "detail": ALL},
            "warnings": [ALL],
            "spec": spec,
            "queues": [{"generator": ALL, "vlms": [ALL], "waiting": 1, "running": 0, "workers": 0}],
            "time": {"seconds": 90.0, "step_seconds": 0.5, "basis": ALL},
        }
        return httpx.Response(200, json=dry)
    if "/artifacts/" in path:
        return httpx.Response(200, content=b"x")
    bodies: dict[tuple[str, str], Any] = {
        ("GET", "/v1/jobs"): {"jobs": [job]},
        ("GET", "/v1/models"): models(ALL),
        ("GET", "/v1/version"): {"version": ALL},
        ("POST", "/v1/batches"): {
            "id": ID,
            "created_at": JOB["created_at"],
            "jobs": [{"id": ID, "name": ALL, "status": "queued"}],
            "counts": {},
        },
        ("GET", f"/v1/batches/{ID}/jobs"): {"jobs": [job | {"status": "queued"}]},
        ("POST", "/v1/questions"): {"questions": [draft], "job": None},
        ("POST", "/v1/prompts/expand"): {"prompt": ALL, "warnings": [ALL], "job": None},
        ("POST", "/v1/answers"): {"answers": [ALL], "job": None},
    }
    return httpx.Response(200, json=bodies.get((request.method, path), job))


def refusing(status: int) -> Handler:
    errors = [{"field": ALL, "message": ALL}]
    problem = {"title": ALL, "status": status, "detail": ALL, "errors": errors}
    return lambda request: httpx.Response(status, json=problem)


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["words", "json"])
@pytest.mark.parametrize("command", WALK)
def test_nothing_unprintable_is_printed_by_any_command(
    told: Callable[..., str],
    command: str,
    json_flag: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    question = {"question": ALL, "answer": ALL}
    spec = {"prompt": ALL, "questions": [question], "generator": "x", "vlm": "y", "name": ALL}
    Path("job.json").write_text(json.dumps(spec))
    Path("set.json").write_text(json.dumps({"specs": [spec]}))
    Path("picture.png").write_bytes(b"x")
    for arguments in WALK[command]:
        for handler in (hostile, refusing(404), refusing(422)):
            written = told(handler, command, *arguments, *json_flag)
            assert written
            assert is_printable(written), repr(written)
        # Arguments that were typed, or that a script passed on.
        for wrong in ([f"--{ALL}"], ["--url", ALL], ["--api-key", ALL], [ALL, ALL, ALL]):
            assert is_printable(told(hostile, command, *arguments, *wrong))
    for page in Path().rglob("*.html"):
        assert is_printable(page.read_text(encoding="utf-8"))


def test_json_has_all_of_it_as_escapes(told: Callable[..., str]) -> None:
    written = told(hostile, "show", ID, "--json")
    assert json.loads(written)["name"] == ALL


def test_an_error_that_nobody_catches_is_printable() -> None:
    transport = httpx.MockTransport(refusing(404))
    with Client("http://service", transport=transport) as client, pytest.raises(NotFound) as caught:
        client.models()
    assert is_printable(str(caught.value))
    assert caught.value.problem.title == ALL
    job = Job.model_validate(JOB | {"error": ALL, "waiting_for": ALL})
    for error in (JobFailed(job), JobNotReady(job)):
        assert is_printable(str(error))
