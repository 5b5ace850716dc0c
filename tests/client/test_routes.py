"""Every route of the API has a method in both clients."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from dualprocess import (
    AnswersRequest,
    BatchRequest,
    Client,
    ExpansionRequest,
    ImagesRequest,
    NotFound,
    QuestionsRequest,
)
from dualprocess.calls import WorkRequest
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.client.conftest import Talking
from tests.client.test_client import SPEC

ID = "0" * 26
IMAGES = ImagesRequest(prompt="a circle", generator="tiny-flux")
WRITE = QuestionsRequest(prompt="a circle")
EXPAND = ExpansionRequest(prompt="a circle")
ASK = AnswersRequest(image=b"a PNG", questions=["What is it?"], vlm="tiny-idefics2")

#: The call for each route. A new route needs a line here, or one in ``NOBODYS``.
METHODS: dict[tuple[str, str], Callable[[Client], object]] = {
    ("POST", "/v1/jobs"): lambda client: client.submit(SPEC),
    ("GET", "/v1/jobs"): lambda client: list(client.jobs()),
    ("GET", "/v1/jobs/{job_id}"): lambda client: client.job(ID),
    ("DELETE", "/v1/jobs/{job_id}"): lambda client: client.delete(ID),
    ("POST", "/v1/jobs/{job_id}/cancel"): lambda client: client.cancel(ID),
    ("GET", "/v1/jobs/{job_id}/events"): lambda client: list(client.events(ID)),
    ("GET", "/v1/jobs/{job_id}/artifacts/{name}"): lambda client: client.read_artifact(ID, "a"),
    ("POST", "/v1/batches"): lambda client: client.submit_batch(BatchRequest(specs=[SPEC])),
    ("GET", "/v1/batches/{batch_id}"): lambda client: client.batch(ID),
    ("GET", "/v1/batches/{batch_id}/jobs"): lambda client: list(client.batch_jobs(ID)),
    ("POST", "/v1/batches/{batch_id}/cancel"): lambda client: client.cancel_batch(ID),
    ("POST", "/v1/images"): lambda client: client.generate(IMAGES),
    ("POST", "/v1/questions"): lambda client: client.write_questions(WRITE),
    ("POST", "/v1/prompts/expand"): lambda client: client.expand_prompt(EXPAND),
    ("POST", "/v1/answers"): lambda client: client.ask(ASK),
    ("GET", "/v1/models"): lambda client: client.models(),
    ("GET", "/metrics"): lambda client: client.metrics(),
    ("GET", "/v1/version"): lambda client: client.version(),
}

#: Routes without a method, and why.
NOBODYS = {
    ("GET", "/healthz"): "for what watches the service",
    ("GET", "/readyz"): "for what watches the service",
    ("HEAD", "/v1/jobs/{job_id}/artifacts/{name}"): "a job's artifacts say size and hash",
}


#: A request of each route that makes models compute.
COMPUTING: dict[str, WorkRequest] = {
    "/v1/jobs": SPEC,
    "/v1/batches": BatchRequest(specs=[SPEC]),
    "/v1/images": IMAGES,
    "/v1/questions": WRITE,
    "/v1/prompts/expand": EXPAND,
    "/v1/answers": ASK,
}


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    folder: Path = tmp_path_factory.mktemp("artifacts")
    document = create_app(ApiSettings(artifacts=folder.as_uri())).openapi()
    return {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }


@pytest.mark.parametrize("path", COMPUTING)
def test_a_dry_run_of_any_request_asks_its_route(talking_to: Talking, path: str) -> None:
    asked: list[tuple[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.path, request.url.params["dry_run"]))
        return httpx.Response(200, json={"jobs": 1, "work": 2.5, "parts": {"training": 2.5}})

    assert talking_to(handle).dry_run(COMPUTING[path]).work == 2.5
    assert asked == [(path, "true")]


def test_a_dry_run_is_there_for_all_that_makes_models_compute(
    routes: set[tuple[str, str]],
) -> None:
    made = {path for method, path in routes if method == "POST" and "{" not in path}
    assert made == COMPUTING.keys()


def test_every_route_has_a_line(routes: set[tuple[str, str]]) -> None:
    assert METHODS.keys() | NOBODYS.keys() == routes
    assert not METHODS.keys() & NOBODYS.keys()


@pytest.mark.parametrize("route", METHODS, ids=" ".join)
def test_every_method_asks_its_route(talking_to: Talking, route: tuple[str, str]) -> None:
    asked: list[tuple[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        return httpx.Response(404)

    with pytest.raises(NotFound):
        METHODS[route](talking_to(handle))
    (sent,) = asked
    method, path = route
    assert sent[0] == method
    assert re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), sent[1])
