"""A stranger's key against every route: nothing of another owner's job comes back.

``make strangers`` shows the walk as a table.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from dualprocess.schemas import Job, JobStatus
from services.orchestrator.api.auth import OPEN_PATHS
from services.orchestrator.store.artifacts import LORA_FILE
from tests.orchestrator.conftest import SPEC, Api, Guarded, Site
from tests.orchestrator.scripted import png

MARK = "heliotrope"
OWNERS: dict[str, Any] = {
    "prompt": f"a {MARK} circle",
    "questions": [{"question": f"Is the circle {MARK}?", "answer": f"Yes {MARK}"}],
    "name": f"job {MARK}",
    "metadata": {MARK: MARK},
}
IDEMPOTENCY_KEY = "shared-by-chance"
IMAGES = {"prompt": "a circle", "generator": "tiny-flux", "wait": 0}

WRITE = {"prompt": "a circle", "vlm": "qwen2.5-vl", "wait": 0}
ASK = {
    "image": base64.b64encode(png("red")).decode(),
    "questions": ["What is it?"],
    "vlm": "tiny-idefics2",
    "wait": 0,
}

Told = Callable[[httpx.Response, Job], bool]


@dataclass(frozen=True)
class Visit:
    """One request of the stranger, and the only answer that is right."""

    status: int
    body: Callable[[Job], Any] = lambda job: None
    tells: Told = lambda answer, job: True


def a_job_of_ones_own(answer: httpx.Response, job: Job) -> bool:
    return bool(answer.json()["owner"] != job.owner and answer.json()["id"] != job.id)


def words_of_ones_own(answer: httpx.Response, job: Job) -> bool:
    its = answer.json()["job"]
    return bool(its["owner"] != job.owner and its["id"] != job.id)


def only_ones_own(answer: httpx.Response, job: Job) -> bool:
    return all(listed["owner"] != job.owner for listed in answer.json()["jobs"])


def one_job(spec: dict[str, Any]) -> dict[str, Any]:
    return {"specs": [spec]}


def no_such_job(answer: httpx.Response, job: Job) -> bool:
    return "there is no job" in answer.json()["errors"][0]["message"]


NOT_THERE = [Visit(404)]

#: The right answer of each route to a stranger. A new route needs a line here, or this file fails.
RULES: dict[tuple[str, str], list[Visit]] = {
    ("GET", "/v1/jobs"): [Visit(200, tells=only_ones_own)],
    ("POST", "/v1/jobs"): [
        Visit(422, lambda job: SPEC | {"lora": {"start": {"job": job.id}}}, no_such_job),
        Visit(202, lambda job: SPEC, a_job_of_ones_own),
    ],
    ("GET", "/v1/jobs/{job_id}"): NOT_THERE,
    ("DELETE", "/v1/jobs/{job_id}"): NOT_THERE,
    ("POST", "/v1/jobs/{job_id}/cancel"): NOT_THERE,
    ("GET", "/v1/jobs/{job_id}/events"): NOT_THERE,
    ("GET", "/v1/jobs/{job_id}/artifacts/{name}"): NOT_THERE,
    ("HEAD", "/v1/jobs/{job_id}/artifacts/{name}"): NOT_THERE,
    ("POST", "/v1/batches"): [
        Visit(422, lambda job: one_job(SPEC | {"lora": {"start": {"job": job.id}}}), no_such_job),
        Visit(202, lambda job: one_job(SPEC), a_job_of_ones_own),
    ],
    ("GET", "/v1/batches/{batch_id}"): NOT_THERE,
    ("GET", "/v1/batches/{batch_id}/jobs"): NOT_THERE,
    ("POST", "/v1/batches/{batch_id}/cancel"): NOT_THERE,
    ("POST", "/v1/images"): [
        Visit(422, lambda job: IMAGES | {"loras": [{"job": job.id}]}, no_such_job),
        Visit(202, lambda job: IMAGES, a_job_of_ones_own),
    ],
    ("POST", "/v1/questions"): [Visit(202, lambda job: WRITE, words_of_ones_own)],
    ("POST", "/v1/prompts/expand"): [Visit(202, lambda job: WRITE, words_of_ones_own)],
    ("POST", "/v1/answers"): [Visit(202, lambda job: ASK, words_of_ones_own)],
    ("GET", "/v1/models"): [Visit(200)],
    ("GET", "/healthz"): [Visit(200)],
    ("GET", "/v1/version"): [Visit(200)],
    ("GET", "/readyz"): [Visit(200)],
    ("GET", "/metrics"): [Visit(403)],
}


def routes(guarded: Guarded) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of everything that the API documents."""
    for path, operations in guarded.app.openapi()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation


def addresses(path: str, job: Job) -> list[str]:
    """The path with everything of the job that it can name."""
    names = [artifact.name for artifact in job.artifacts] if "{name}" in path else [""]
    return [path.format(job_id=job.id, batch_id=job.batch, name=name) for name in names]


@pytest.fixture
async def owner(guarded: Guarded) -> Api:
    return await guarded.owner()


@pytest.fixture
async def job(owner: Api, site: Site) -> Job:
    """A finished job with contents that nobody else may see."""
    site.start_worker()
    headers = {"Idempotency-Key": IDEMPOTENCY_KEY}
    batch = one_job(SPEC | OWNERS) | {"name": f"batch {MARK}"}
    answer = await owner.http.post("/v1/batches", json=batch, headers=headers)
    ended = await owner.ended(answer.json()["jobs"][0]["id"])
    assert ended.status == JobStatus.SUCCEEDED
    assert LORA_FILE in [artifact.name for artifact in ended.artifacts]
    return ended


async def test_the_strangers_walk(guarded: Guarded, owner: Api, job: Job) -> None:
    files = [
        (await owner.http.get(f"/v1/jobs/{job.id}/artifacts/{artifact.name}")).content
        for artifact in job.artifacts
    ]
    for method, path, _ in routes(guarded):
        # An idempotency key stands for one request, so each route gets a stranger of its own.
        stranger = await guarded.owner()
        for visit in RULES[method, path]:
            print(f"{method:6} {path:40} {visit.status} × {len(addresses(path, job))}")
            for address in addresses(path, job):
                answer = await stranger.http.request(
                    method,
                    address,
                    json=visit.body(job),
                    headers={"Idempotency-Key": IDEMPOTENCY_KEY},
                )
                where = f"{method} {address}: {answer.text}"
                assert answer.status_code == visit.status, where
                assert visit.tells(answer, job), where
                assert MARK not in answer.text, where
                assert not any(file in answer.content for file in files), where
                if answer.is_success:
                    assert job.id not in answer.text, where
    assert await owner.job(job.id) == job


async def test_a_stranger_who_has_no_jobs_sees_none(guarded: Guarded, job: Job) -> None:
    stranger = await guarded.owner()
    for status in ("", *JobStatus):
        query = {"status": status} if status else {}
        assert (await stranger.http.get("/v1/jobs", params=query)).json()["jobs"] == []


async def test_the_owner_finds_behind_the_same_doors_what_is_theirs(
    guarded: Guarded, owner: Api, job: Job
) -> None:
    """Without this the stranger's requests would prove nothing."""
    for method, path, _ in routes(guarded):
        if path.startswith(("/v1/jobs/", "/v1/batches/")) and method != "DELETE":
            for address in addresses(path, job):
                answer = await owner.http.request(method, address)
                assert answer.status_code == 200, f"{method} {address}"
    assert MARK in (await owner.http.get("/v1/jobs")).text


async def test_without_a_key_every_door_but_the_open_ones_is_shut(
    guarded: Guarded, job: Job
) -> None:
    nobody = guarded.with_key(None)
    for method, path, operation in routes(guarded):
        for address in addresses(path, job):
            answer = await nobody.http.request(method, address)
            if path in OPEN_PATHS:
                assert answer.status_code == 200, address
                assert "security" not in operation
            else:
                assert answer.status_code == 401, address
                assert answer.headers["www-authenticate"].startswith("Bearer")
                # What scope it takes is in the contract, so nothing is open by oversight.
                assert operation["security"], f"{method} {path} asks for no scope"


async def test_a_strangers_answer_is_the_same_as_for_no_job(guarded: Guarded, job: Job) -> None:
    stranger = await guarded.owner()
    for path in ("", "/events", f"/artifacts/{LORA_FILE}"):
        theirs = await stranger.http.get(f"/v1/jobs/{job.id}{path}")
        nothing = await stranger.http.get(f"/v1/jobs/{'0' * 26}{path}")
        told, plain = theirs.json(), nothing.json()
        assert told.pop("request_id") != plain.pop("request_id")
        assert str(told).replace(job.id, "0" * 26) == str(plain)
        assert theirs.status_code == nothing.status_code == 404


async def test_a_queued_job_can_not_be_cancelled_by_a_stranger(
    guarded: Guarded, owner: Api
) -> None:
    queued = await owner.submit()
    stranger = await guarded.owner()
    assert (await stranger.http.post(f"/v1/jobs/{queued.id}/cancel")).status_code == 404
    assert (await owner.job(queued.id)).status == JobStatus.QUEUED


async def test_an_admin_sees_everyones(guarded: Guarded, owner: Api, job: Job) -> None:
    admin = await guarded.owner("admin")
    mine = await admin.submit()
    page = (await admin.http.get("/v1/jobs")).json()["jobs"]
    assert [listed["id"] for listed in page] == [mine.id, job.id]
    assert len({listed["owner"] for listed in page}) == 2
    lora = await admin.http.get(f"/v1/jobs/{job.id}/artifacts/{LORA_FILE}")
    assert lora.status_code == 200
    assert (await owner.http.get(f"/v1/jobs/{mine.id}")).status_code == 404


async def test_pages_hold_an_owners_jobs_only(guarded: Guarded, owner: Api) -> None:
    other = await guarded.owner()
    mine = []
    for _ in range(5):
        mine.append((await owner.submit()).id)
        await other.submit()
    await owner.http.post(f"/v1/jobs/{mine[1]}/cancel")
    for query, wanted in (
        ({}, mine[::-1]),
        ({"status": "queued"}, [mine[4], mine[3], mine[2], mine[0]]),
        ({"status": "cancelled"}, [mine[1]]),
        ({"status": "running"}, []),
    ):
        assert await _walked(owner, query) == sorted(wanted, reverse=True)


async def _walked(api: Api, query: dict[str, str]) -> list[str]:
    """The ids on all pages of two."""
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.http.get("/v1/jobs", params={"limit": "2", **query, **cursor})).json()
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        if not page.get("next"):
            return seen
        cursor = {"cursor": page["next"]}
