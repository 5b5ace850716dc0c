"""Both clients of the SDK, with a service that is away, comes back, or refuses."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

import dualprocess
from dualprocess import (
    ApiError,
    AsyncClient,
    Client,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    JobSpec,
    JobStatus,
    NotFound,
    Question,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
    protocol,
)
from dualprocess.schemas import StatusEvent, StepEvent
from tests.client.conftest import Talking

SPEC = JobSpec(
    prompt="a circle",
    questions=[Question(question="Is it red?", answer="Yes")],
    generator="tiny-flux",
    vlm="tiny-idefics2",
)
JOB: dict[str, Any] = {
    "id": "0" * 26,
    "kind": "images",
    "status": "succeeded",
    "generator": "tiny-flux",
    "vlms": [],
    "created_at": "2026-01-01T00:00:00Z",
    "spec": {
        "prompt": "a circle",
        "generator": "tiny-flux",
        "seeds": [0],
        "loras": [],
        "image": {"width": 64, "height": 64, "num_inference_steps": 1, "guidance_scale": 0},
        "questions": [],
        "question_postfix": "",
        "vlm": None,
    },
}


def problem(status: int, **fields: object) -> httpx.Response:
    return httpx.Response(status, json={"title": "No", "status": status, **fields})


def test_everything_public_is_listed() -> None:
    public = {name for name in vars(dualprocess) if not name.startswith("_")}
    modules = {name for name in public if isinstance(vars(dualprocess)[name], ModuleType)}
    assert public - modules == set(dualprocess.__all__) - {"__version__"}


def test_both_clients_have_the_same_methods() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: [str(parameter) for parameter in inspect.signature(method).parameters.values()]
            for name, method in found
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_a_submission_is_repeated_under_one_key(talking_to: Talking) -> None:
    keys = []

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ConnectError("refused")
        return problem(503) if len(keys) == 2 else httpx.Response(202, json=JOB)

    assert talking_to(handle).submit(SPEC).id == JOB["id"]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def asked_of(client: Client, what: str, folder: Path) -> object:
    match what:
        case "events":
            return list(client.events(JOB["id"]))
        case "wait":
            return client.wait(JOB["id"])
        case "download":
            return client.download(JOB["id"], "lora.safetensors", folder / "lora")
        case _:
            return client.job(JOB["id"])


@pytest.mark.parametrize("what", ["job", "events", "wait", "download"])
@pytest.mark.parametrize("status", [None, 502], ids=["no answer", "502"])
def test_there_is_a_try_behind_each_pause_and_no_more(
    talking_to: Talking, tmp_path: Path, what: str, status: int | None
) -> None:
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if status is None:
            raise httpx.ConnectError("refused")
        return problem(status)

    with pytest.raises(ServiceUnavailable if status else ConnectionFailed):
        asked_of(talking_to(handle), what, tmp_path)
    assert len(calls) == 1 + len(protocol.RETRY_SECONDS)


def test_images_are_never_rendered_twice(talking_to: Talking) -> None:
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ReadError("gone")

    with pytest.raises(ConnectionFailed, match="start the service with `dualprocess up`"):
        talking_to(handle).generate(
            dualprocess.ImagesRequest(prompt="a circle", generator="tiny-flux")
        )
    assert len(calls) == 1


def test_a_refusal_names_its_fields_and_is_not_repeated(talking_to: Talking) -> None:
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return problem(422, errors=[{"field": "vlm", "message": "unknown; write tiny-idefics2"}])

    with pytest.raises(InvalidRequest, match="unknown; write tiny-idefics2") as caught:
        talking_to(handle).submit(SPEC)
    assert [error.field for error in caught.value.problem.errors] == ["vlm"]
    assert len(calls) == 1


def test_an_answer_of_somebody_else_is_still_an_error(talking_to: Talking) -> None:
    with pytest.raises(NotFound, match="404"):
        talking_to(lambda request: httpx.Response(404, text="<html>proxy</html>")).job("0" * 26)


def test_an_answer_of_another_server_says_what_to_check(talking_to: Talking) -> None:
    page = httpx.Response(501, text="<html>Unsupported method ('POST')</html>")
    with pytest.raises(ApiError, match="does not come from a dualprocess service") as caught:
        talking_to(lambda request: page).submit(SPEC)
    assert caught.value.problem.detail is not None
    assert "Check the service's address; the request went to http://" in caught.value.problem.detail


def test_a_key_goes_with_every_request(
    talking_to: Talking, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("Authorization"))
        return httpx.Response(200, json=JOB)

    monkeypatch.setenv("DUALPROCESS_API_KEY", "dp_of_the_environment\n")
    talking_to(handle, "dp_its_own").job(JOB["id"])
    talking_to(handle).job(JOB["id"])
    monkeypatch.delenv("DUALPROCESS_API_KEY")
    talking_to(handle).job(JOB["id"])
    assert sent == ["Bearer dp_its_own", "Bearer dp_of_the_environment", None]


def test_a_used_up_quota_says_when_to_come_back(talking_to: Talking) -> None:
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        body = {"title": "The quota of queued jobs is used up", "status": 429}
        return httpx.Response(429, json=body, headers={"Retry-After": "10"})

    with pytest.raises(RateLimited, match="quota of queued jobs") as caught:
        talking_to(handle).submit(SPEC)
    assert caught.value.retry_after == 10
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, InvalidRequest) for status in (400, 413, 415, 422)),
        *((status, Unauthorized) for status in (401, 403)),
        *((status, NotFound) for status in (404, 410)),
        (409, Conflict),
        (429, RateLimited),
        *((status, ServiceUnavailable) for status in (502, 503, 504)),
        (500, ApiError),
    ],
)
def test_each_refusal_is_an_error_of_its_kind(
    talking_to: Talking, status: int, error: type[ApiError]
) -> None:
    with pytest.raises(ApiError) as caught:
        talking_to(lambda request: problem(status)).models()
    assert type(caught.value) is error


def test_events_go_on_where_a_connection_broke(talking_to: Talking) -> None:
    step = {
        "type": "step",
        "attempt": 1,
        "steps": 2,
        "loss": 0.5,
        "probability": {"joint": 0.5, "geometric_mean": 0.5},
        "questions": [],
        "grad_norm": 1.0,
        "timings": {"forward": 0, "vlm": 0, "wire": 0, "backward": 0, "total": 0},
    }
    stream = [
        ("1-0", {**step, "step": 1}),
        ("2-0", {**step, "step": 2}),
        ("3-0", {"type": "status", "status": "succeeded", "attempt": 1}),
    ]
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json={**JOB, "status": "running"})
        last = request.headers.get("Last-Event-ID")
        asked.append(last)
        behind = [entry for entry in stream if last is None or entry[0] > last]
        text = "".join(f"id: {key}\ndata: {json.dumps(data)}\n\n" for key, data in behind[:1])
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)

    events = [record.event for record in talking_to(handle).events("0" * 26)]
    assert asked == [None, "1-0", "2-0"]
    assert [type(event) for event in events] == [StepEvent, StepEvent, StatusEvent]


def test_a_stream_that_others_have_is_asked_for_until_it_is_free(
    talking_to: Talking, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) < 10:
            return full()
        ends = {"type": "status", "status": "succeeded", "attempt": 1}
        text = f"id: 1-0\ndata: {json.dumps(ends)}\n\n"
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)

    assert [record.id for record in talking_to(handle).events("0" * 26)] == ["1-0"]
    assert len(asked) == 10
    assert [record.message for record in caplog.records if "close one" in record.message] == [
        "All event streams are taken: close one. The client asks again until it gets its stream."
    ]


def test_a_job_is_waited_for_without_a_stream_where_none_is_free(talking_to: Talking) -> None:
    looks = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return full()
        looks.append(request)
        return httpx.Response(200, json=JOB | {"status": "succeeded" if looks[2:] else "running"})

    assert talking_to(handle).wait(JOB["id"]).status == "succeeded"
    assert len(looks) == 4


def full() -> httpx.Response:
    body = {"title": "All event streams are taken", "detail": "close one.", "status": 429}
    return httpx.Response(429, json=body, headers={"Retry-After": "0"})


def test_events_of_a_job_that_ended_while_the_stream_was_broken_still_come(
    talking_to: Talking,
) -> None:
    """A server that loses Redis ends its answer as if it were complete."""
    ends = {"type": "status", "status": "succeeded", "attempt": 1}
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json={**JOB, "status": "succeeded"})
        asked.append(request.headers.get("Last-Event-ID"))
        running = {"type": "status", "status": "running", "attempt": 1}
        data = running if len(asked) == 1 else ends
        text = f"id: {len(asked)}-0\ndata: {json.dumps(data)}\n\n"
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)

    records = list(talking_to(handle).events("0" * 26))
    assert asked == [None, "1-0"]
    assert [record.id for record in records] == ["1-0", "2-0"]


class CutConnection(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A sign of life; then the connection is cut, as a proxy cuts old connections."""

    def __iter__(self) -> Iterator[bytes]:
        yield b": alive\n\n"
        raise httpx.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def test_a_quiet_job_is_followed_over_any_number_of_cut_connections(talking_to: Talking) -> None:
    stream = {"Content-Type": "text/event-stream"}
    ends = {"type": "status", "status": "succeeded", "attempt": 1}
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json={**JOB, "status": "running"})
        asked.append(request)
        if len(asked) <= 20:
            return httpx.Response(200, headers=stream, stream=CutConnection())
        return httpx.Response(200, headers=stream, text=f"id: 1-0\ndata: {json.dumps(ends)}\n\n")

    assert [record.id for record in talking_to(handle).events("0" * 26)] == ["1-0"]
    assert len(asked) == 21


def test_a_stream_that_began_gives_back_the_tries_before_it_and_no_more(
    talking_to: Talking,
) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) != 3:
            raise httpx.ConnectError("refused")
        headers = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, headers=headers, stream=CutConnection())

    with pytest.raises(ConnectionFailed):
        list(talking_to(handle).events("0" * 26))
    # That it was cut is the first failure of the next round.
    assert len(asked) == 3 + len(protocol.RETRY_SECONDS)


def test_a_stream_that_brought_nothing_may_have_ended_before_the_job(talking_to: Talking) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json={**JOB, "status": "succeeded"})
        asked.append(request)
        ends = json.dumps({"type": "status", "status": "succeeded", "attempt": 1})
        text = f"id: 1-0\ndata: {ends}\n\n" if len(asked) == 2 else ""
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)

    assert [record.id for record in talking_to(handle).events("0" * 26)] == ["1-0"]


def test_an_event_that_is_broken_is_an_error(talking_to: Talking) -> None:
    """Only a kind that is not known here is passed over."""

    def handle(request: httpx.Request) -> httpx.Response:
        text = 'id: 1-0\ndata: {"type": "status", "status": "asleep"}\n\n'
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)

    with pytest.raises(ValidationError, match="status"):
        list(talking_to(handle).events("0" * 26))


def test_to_wait_is_to_follow_the_events_to_their_end(talking_to: Talking) -> None:
    told: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json={**JOB, "status": "succeeded" if told else "running"})
        told.append(request)
        ends = json.dumps({"type": "status", "status": "succeeded", "attempt": 1})
        headers = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, headers=headers, text=f"id: 1-0\ndata: {ends}\n\n")

    assert talking_to(handle).wait("0" * 26).status == JobStatus.SUCCEEDED


def test_a_page_of_somebody_else_is_no_stream(talking_to: Talking) -> None:
    page = httpx.Response(200, headers={"Content-Type": "text/html"}, text="<html>")
    with pytest.raises(ConnectionFailed):
        list(talking_to(lambda request: page).events("0" * 26))


def test_behind_the_end_of_a_job_nothing_comes(talking_to: Talking) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json={**JOB, "status": "succeeded"})
        asked.append(request.headers["Last-Event-ID"])
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text="")

    assert list(talking_to(handle).events("0" * 26, last_event_id="7-0")) == []
    assert asked == ["7-0", "7-0"], "one of them began behind the job's end"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a client makes, none of which takes time."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    # Only the clients' own: a server in another thread of the tests may pause as well.
    timed = SimpleNamespace(**vars(time) | {"sleep": pauses.append})
    waited = SimpleNamespace(**vars(asyncio) | {"sleep": sleep})
    monkeypatch.setattr("dualprocess.client.time", timed)
    monkeypatch.setattr("dualprocess.async_client.asyncio", waited)
    return pauses


def test_a_pause_is_as_long_as_the_service_asks(talking_to: Talking, slept: list[float]) -> None:
    answers = iter(
        [
            httpx.Response(503, headers={"Retry-After": "30"}),
            httpx.Response(503),
            httpx.Response(200, json=JOB),
        ]
    )
    assert talking_to(lambda request: next(answers)).job(JOB["id"]).id == JOB["id"]
    assert slept == [30.0, 0.0]


def test_nobody_waits_longer_than_half_a_minute_for_the_service(
    talking_to: Talking, slept: list[float]
) -> None:
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(503, headers={"Retry-After": "31"})

    with pytest.raises(ServiceUnavailable) as caught:
        talking_to(handle).job(JOB["id"])
    assert caught.value.retry_after == 31
    assert (len(calls), slept) == (1, [])


def test_an_answer_that_is_no_job_is_an_error_of_ours(talking_to: Talking) -> None:
    with pytest.raises(ApiError, match="check the service's address"):
        talking_to(lambda request: httpx.Response(200, text="<html>")).job(JOB["id"])


def test_jobs_come_page_by_page(talking_to: Talking) -> None:
    asked = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(dict(request.url.params))
        following = "1" * 26 if len(asked) == 1 else None
        return httpx.Response(200, json={"jobs": [JOB, JOB], "next": following})

    jobs = list(talking_to(handle).jobs(status=JobStatus.SUCCEEDED))
    assert len(jobs) == 4
    assert asked == [
        {"status": "succeeded"},
        {"status": "succeeded", "cursor": "1" * 26},
    ]


def test_a_broken_download_begins_anew_and_leaves_no_half_file(
    talking_to: Talking, tmp_path: Path
) -> None:
    calls = []

    def handle(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) == 1:
            raise httpx.ReadError("gone")
        return httpx.Response(200, content=b"a LoRA")

    path = talking_to(handle).download(JOB["id"], "lora.safetensors", tmp_path / "lora")
    assert path.read_bytes() == b"a LoRA"
    with pytest.raises(NotFound):
        talking_to(lambda request: problem(404)).download(JOB["id"], "no", tmp_path / "no")
    assert [file.name for file in tmp_path.iterdir()] == ["lora"]


def test_a_newer_service_may_say_more(talking_to: Talking) -> None:
    told = [
        {"type": "weather", "sky": "blue"},
        {"type": "status", "status": "succeeded", "mood": "good"},
    ]
    stream = "".join(f"id: {n}-0\ndata: {json.dumps(event)}\n\n" for n, event in enumerate(told, 1))
    job = JOB | {"mood": "good", "spec": JOB["spec"] | {"mood": "good"}}

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            headers = {"Content-Type": "text/event-stream"}
            return httpx.Response(200, text=stream, headers=headers)
        return httpx.Response(200, json=job)

    client = talking_to(handle)
    assert [record.id for record in client.events(JOB["id"])] == ["2-0"]
    assert client.wait(JOB["id"]).id == JOB["id"]
