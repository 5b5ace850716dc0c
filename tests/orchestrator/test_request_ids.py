"""The id of a request: in its answer, in the log, and with what it sets off."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.common import trail
from services.common.trail import Trail
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.orchestrator.conftest import ASKED, SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import ScriptedGenerator, ScriptedVlm
from tests.redis_server import RedisServer

MADE = re.compile(r"[0-9a-f]{32}")


async def test_an_answer_carries_the_id_that_was_sent_or_a_new_one(api: Api) -> None:
    sent = await api.http.get("/healthz", headers={"X-Request-Id": "from-my-proxy:7"})
    assert sent.headers["x-request-id"] == "from-my-proxy:7"
    made = [(await api.http.get("/healthz")).headers["x-request-id"] for _ in range(2)]
    assert all(MADE.fullmatch(one) for one in made)
    assert made[0] != made[1]


@pytest.mark.parametrize(
    "sent", ["", "a b", "x" * 65, "a\x1b[2J", "é", "a,b", "dp_0123456789_secret", "-rf"]
)
async def test_what_can_be_no_id_is_replaced(api: Api, sent: str) -> None:
    answer = await api.http.get("/healthz", headers=[(b"X-Request-Id", sent.encode("latin-1"))])
    assert MADE.fullmatch(answer.headers["x-request-id"])


async def test_every_problem_names_it(api: Api, guarded: Guarded) -> None:
    for http, path, status in (
        (api.http, "/v1/nothing", 404),
        (api.http, "/v1/jobs?limit=0", 422),
        (guarded.with_key(None).http, "/v1/jobs", 401),
    ):
        answer = await http.get(path, headers={"X-Request-Id": "mine"})
        assert (answer.status_code, answer.json()["request_id"]) == (status, "mine")
        assert answer.headers["x-request-id"] == "mine"
    refused = await api.http.get("/v1/jobs", headers={"Host": "evil.example"})
    assert refused.json()["request_id"] == refused.headers["x-request-id"]


async def test_a_mistake_of_the_server_is_found_in_its_log_by_it(
    redis_server: RedisServer, artifacts: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(ApiSettings(redis_url=redis_server.url, artifacts=artifacts))

    @app.get("/broken")
    async def broken() -> None:
        raise LookupError("what nobody foresaw")

    told: list[str] = []
    caplog.handler.addFilter(lambda record: told.append(trail.current().request) or True)  # type: ignore[func-returns-value]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        answer = await http.get("/broken", headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert answer.json()["request_id"] == "mine"
    assert "what nobody foresaw" in caplog.text
    assert "mine" in told


@pytest.fixture
def heard(
    generator: ScriptedGenerator, vlm: ScriptedVlm, monkeypatch: pytest.MonkeyPatch
) -> set[tuple[str, Trail]]:
    """Which calls came, and what each said that it was for. Before they are served."""
    calls: set[tuple[str, Trail]] = set()

    score, optimize = vlm.Score, generator.Optimize

    async def scoring(request: Any, context: Any) -> Any:
        calls.add(("Score", Trail.of(context.invocation_metadata() or ())))
        return await score(request, context)

    async def optimizing(requests: Any, context: Any) -> AsyncIterator[Any]:
        calls.add(("Optimize", Trail.of(context.invocation_metadata() or ())))
        async for response in optimize(requests, context):
            yield response

    monkeypatch.setattr(vlm, "Score", scoring)
    monkeypatch.setattr(generator, "Optimize", optimizing)
    return calls


async def test_the_worker_and_what_it_calls_know_the_job_and_the_request(
    api: Api, heard: set[tuple[str, Trail]], site: Site
) -> None:
    asked = {**ASKED, "X-Request-Id": "mine"}
    answer = await api.http.post("/v1/jobs", json=SPEC, headers=asked)
    batch = await api.http.post("/v1/batches", json={"specs": [SPEC]}, headers=asked)
    ids = [answer.json()["id"], batch.json()["jobs"][0]["id"]]
    records: list[tuple[str, Trail]] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append((record.getMessage(), trail.current()))  # type: ignore[method-assign]
    logger = logging.getLogger("services.orchestrator.worker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        site.start_worker()
        for job_id in ids:
            await api.ended(job_id)
    finally:
        logger.removeHandler(handler)
    trails = {Trail(job_id, "mine") for job_id in ids}
    assert heard == {(name, told) for name in ("Score", "Optimize") for told in trails}
    of_jobs = {told for message, told in records if message.startswith("job ")}
    assert of_jobs == trails
