"""What HTTP clients of every kind send: browsers, curl, downloaders, monitors."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.redis_server import RedisServer

BODY = json.dumps(SPEC).encode()
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches", "/v1/images", "/v1/answers"])
@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({}, BODY, "Content-Type is missing"),
        # The type that `curl -d` sends by default.
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            BODY,
            "Content-Type is 'application/x-www-form-urlencoded'",
        ),
        ({"Content-Type": "text/plain;charset=UTF-8"}, BODY, "Content-Type is 'text/plain'"),
        ({"Content-Type": "application/yaml"}, BODY, "Content-Type: application/json"),
        (JSON | {"Content-Encoding": "gzip"}, gzip.compress(BODY), "is 'gzip'; send the JSON"),
        (JSON | {"Content-Encoding": "br, GZIP"}, b"\x00", "is 'br, gzip'; send the JSON"),
        (JSON | {"Content-Encoding": "zstd"}, b"\x28\xb5\x2f\xfd", "is 'zstd'"),
    ],
)
async def test_a_body_that_is_no_plain_json_is_told_how_to_be(
    api: Api, path: str, headers: dict[str, str], body: bytes, said: str
) -> None:
    answer = await api.http.post(path, content=body, headers=headers)
    assert answer.status_code == 415, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "Application/JSON"},
        {"Content-Type": "application/ld+json"},
        JSON | {"Content-Encoding": "identity"},
    ],
)
async def test_json_by_any_of_its_names_is_taken(api: Api, headers: dict[str, str]) -> None:
    answer = await api.http.post("/v1/jobs", content=BODY, headers=headers)
    assert answer.status_code == 202, answer.text
    # A request without a body needs no content type if it has the header.
    assert (await api.http.post(f"/v1/jobs/{answer.json()['id']}/cancel")).is_success


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
async def test_monitors_may_ask_for_the_head_alone(api: Api, path: str) -> None:
    head, whole = await api.http.head(path), await api.http.get(path)
    assert head.status_code == whole.status_code == 200
    assert head.headers["content-type"] == whole.headers["content-type"]


async def test_an_event_source_stops_at_the_end_of_a_job(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.submit()
    await api.ended(job.id)
    url = f"/v1/jobs/{job.id}/events"
    ids = [
        line.removeprefix("id: ")
        for line in (await api.http.get(url)).text.splitlines()
        if line.startswith("id: ")
    ]
    # A first reader has no id, or, by some libraries, an empty one.
    for first in ({}, {"Last-Event-ID": ""}, {"Last-Event-ID": "0"}, {"Last-Event-ID": ids[0]}):
        assert (await api.http.get(url, headers=first)).status_code == 200
    milliseconds = int(ids[-1].partition("-")[0])
    for last in (ids[-1], f"{milliseconds + 1}", f"{milliseconds + 1}-0"):
        again = await api.http.get(url, headers={"Last-Event-ID": last})
        assert (again.status_code, again.content) == (204, b"")


async def test_an_event_source_of_a_job_that_goes_on_goes_on(api: Api) -> None:
    """Its only event is known, and more will come."""
    job = await api.submit()
    listed = await api.http.post(f"/v1/jobs/{job.id}/cancel")
    assert listed.json()["status"] == "cancelled"
    stream = await api.http.get(f"/v1/jobs/{job.id}/events")
    first = next(line for line in stream.text.splitlines() if line.startswith("id: "))
    rest = await api.http.get(
        f"/v1/jobs/{job.id}/events", headers={"Last-Event-ID": first.removeprefix("id: ")}
    )
    assert rest.status_code == 200
    assert "cancelled" in rest.text


#: ``E`` stands for the file's ETag, quotes and all.
CONDITIONS: list[tuple[dict[str, str], int, int | None]] = [
    ({"If-None-Match": "E"}, 304, None),
    ({"If-None-Match": "W/E"}, 304, None),
    ({"If-None-Match": '"a", W/"b",E'}, 304, None),
    ({"If-None-Match": "*"}, 304, None),
    ({"If-None-Match": " * "}, 304, None),
    ({"If-None-Match": '"a, b"'}, 200, None),
    ({"If-None-Match": '"another"'}, 200, None),
    ({"If-None-Match": ""}, 200, None),
    ({"If-None-Match": "E", "Range": "bytes=0-1"}, 304, None),
    ({"If-None-Match": '"another"', "Range": "bytes=0-1"}, 206, 2),
    ({"If-Range": "E", "Range": "bytes=0-1"}, 206, 2),
    ({"If-Range": '"another"', "Range": "bytes=0-1"}, 200, None),
    # A weak one never allows a range, and no date is known here.
    ({"If-Range": "W/E", "Range": "bytes=0-1"}, 200, None),
    ({"If-Range": "Sat, 01 Jan 2022 00:00:00 GMT", "Range": "bytes=0-1"}, 200, None),
    ({"If-Range": '"another"', "Range": "bytes=9999-"}, 200, None),
    ({"If-Match": "E"}, 200, None),
    ({"If-Match": '"a", E'}, 200, None),
    ({"If-Match": "*"}, 200, None),
    ({"If-Match": '"another"'}, 412, None),
    ({"If-Match": "W/E"}, 412, None),
]


async def test_files_are_asked_for_under_conditions(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    for artifact in job.artifacts[:2]:
        url = f"/v1/jobs/{job.id}/artifacts/{artifact.name}"
        etag = (await api.http.head(url)).headers["etag"]
        assert etag == f'"{artifact.sha256}"'
        for sent, status, size in CONDITIONS:
            headers = {name: value.replace("E", etag) for name, value in sent.items()}
            for ask in (api.http.get, api.http.head):
                answer = await ask(url, headers=headers)
                assert answer.status_code == status, (sent, answer.text)
                if status != 412:
                    assert answer.headers["etag"] == etag
                if status in (200, 206):
                    wanted = str(artifact.bytes if size is None else size)
                    assert answer.headers["content-length"] == wanted


async def test_a_condition_on_two_lines_is_one_list(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    artifact = job.artifacts[0]
    lines = [("If-None-Match", '"another"'), ("If-None-Match", f'"{artifact.sha256}"')]
    answer = await api.http.get(f"/v1/jobs/{job.id}/artifacts/{artifact.name}", headers=lines)
    assert answer.status_code == 304


ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
}


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        ("", "https://studio.example", None),
        ("https://studio.example", "https://studio.example", "https://studio.example"),
        ("https://a.example, http://localhost:3000", "http://localhost:3000", "the same"),
        ("https://studio.example", "https://evil.example", None),
        ("https://studio.example", "https://studio.example.evil.example", None),
        ("https://studio.example", "null", None),
        ("*", "https://anyone.example", "*"),
    ],
)
async def test_pages_of_other_origins_are_let_in_by_a_setting(
    redis_server: RedisServer, artifacts: str, setting: str, origin: str, allowed: str | None
) -> None:
    settings = ApiSettings(
        redis_url=redis_server.url, artifacts=artifacts, cors_origins=setting, auth=True
    )
    app = create_app(settings)
    expected: Any = origin if allowed == "the same" else allowed
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://localhost",
            headers={"Origin": origin},
        ) as http,
    ):
        # Browsers ask first, and carry no key then.
        before = await http.options("/v1/jobs", headers=ASKED)
        assert before.headers.get("Access-Control-Allow-Origin") == expected
        assert before.is_success == (allowed is not None)
        if allowed is not None:
            # A refusal can be read, too. Cookies are never let in.
            shut = await http.get("/v1/jobs")
            assert shut.status_code == 401
            assert shut.headers["Access-Control-Allow-Origin"] == expected
            assert "ETag" in shut.headers["Access-Control-Expose-Headers"]
            assert "Access-Control-Allow-Credentials" not in shut.headers
