"""Differences between the API and its document that fuzzing found, one test for each."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.api.auth import OPEN_PATHS
from tests.orchestrator.conftest import Api, Guarded, Site


async def document(api: Api) -> dict[str, Any]:
    described: dict[str, Any] = (await api.http.get("/openapi.json")).json()
    return described


async def test_every_error_is_documented_in_the_media_type_it_has(api: Api) -> None:
    for operations in (await document(api))["paths"].values():
        for operation in operations.values():
            for status in ("4XX", "5XX"):
                assert list(operation["responses"][status]["content"]) == [
                    "application/problem+json"
                ]


async def test_keys_are_documented_where_they_are_asked_for(api: Api, guarded: Guarded) -> None:
    keyless = await document(api)
    assert keyless["security"] == []
    assert "securitySchemes" not in keyless["components"]
    described = await document(guarded.with_key(None))
    assert list(described["components"]["securitySchemes"]) == ["ApiKey"]
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in OPEN_PATHS), path


async def test_the_examples_are_accepted_as_they_stand(api: Api) -> None:
    paths = (await document(api))["paths"]
    for path, operations in paths.items():
        if "post" not in operations or "requestBody" not in operations["post"]:
            continue
        (example,) = operations["post"]["requestBody"]["content"]["application/json"][
            "examples"
        ].values()
        waits = {} if path in ("/v1/jobs", "/v1/batches") else {"wait": 0}
        body = example["value"] | waits
        answer = await api.http.post(path, json=body)
        assert answer.status_code == 202, f"{path}: {answer.text}"


async def test_a_streams_events_are_documented(api: Api) -> None:
    described = await document(api)
    answer = described["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]
    data = answer["content"]["text/event-stream"]["schema"]["properties"]["data"]
    names = [form["$ref"].rpartition("/")[2] for form in data["contentSchema"]["oneOf"]]
    kinds = [described["components"]["schemas"][name]["properties"]["type"] for name in names]
    assert {kind["const"] for kind in kinds} == {
        "status",
        "step",
        "skipped",
        "warning",
        "preview",
        "artifact",
    }


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", {"GET", "POST"}),
        ("PATCH", f"/v1/jobs/{'0' * 26}", {"GET", "DELETE"}),
        ("POST", "/v1/models", {"GET"}),
    ],
)
async def test_a_wrong_method_brings_all_that_are_right(
    api: Api, method: str, path: str, allowed: set[str]
) -> None:
    answer = await api.http.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed


async def test_an_event_id_beyond_what_redis_counts_is_refused(api: Api) -> None:
    job = await api.submit()
    headers = {"Last-Event-ID": "9" * 20}
    answer = await api.http.get(f"/v1/jobs/{job.id}/events", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Last-Event-ID"


async def test_a_range_of_thousands_of_digits_means_everything(api: Api, site: Site) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    path = f"/v1/jobs/{job.id}/artifacts/{job.artifacts[0].name}"
    whole = await api.http.get(path)
    huge = await api.http.get(path, headers={"Range": f"bytes=0-{'9' * 5000}"})
    assert (huge.status_code, huge.content) == (200, whole.content)
