"""An artifact store that is full for a while: jobs say so, wait, and go on."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dualprocess.schemas import JobStatus
from services.orchestrator.store.artifacts import LORA_FILE, ArtifactStore
from services.orchestrator.store.redis import Client, artifacts_key
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.orchestrator.test_start import GOOD, sent


class Store:
    """A folder in which a file lies where jobs should: nobody can write there, root neither."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "jobs"

    def close(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._folder.rename(self._folder.with_name("closed"))
        self._folder.write_text("no folder")

    def open(self) -> None:
        self._folder.unlink()
        self._folder.with_name("closed").rename(self._folder)


@pytest.fixture
def store(tmp_path: Path, api: Api) -> Store:
    return Store(tmp_path / "artifacts")


async def test_a_job_waits_for_room_and_goes_on(api: Api, site: Site, store: Store) -> None:
    store.close()
    site.start_worker(lease_seconds=1)
    job = await api.until((await api.submit()).id, lambda job: job.waiting_for and job.step)
    assert "the artifact store, which is full or away" in (job.waiting_for or "")
    assert "/" not in (job.waiting_for or "")
    store.open()
    job = await api.ended(job.id)
    assert (job.status, job.attempt, job.waiting_for) == (JobStatus.SUCCEEDED, 1, None)
    lora = await api.http.get(f"/v1/jobs/{job.id}/artifacts/{LORA_FILE}")
    assert lora.status_code == 200


async def test_checkpoints_wait_for_room_too(api: Api, site: Site, store: Store) -> None:
    store.close()
    site.start_worker()
    job = await api.submit(optimizer={"steps": 3, "checkpoint_every": 1})
    job = await api.until(job.id, lambda job: job.waiting_for and job.step)
    assert (job.step, job.checkpoint) == (1, None)
    store.open()
    assert (await api.ended(job.id)).status == JobStatus.SUCCEEDED


async def test_a_job_that_waits_for_room_can_be_cancelled(
    api: Api, site: Site, store: Store
) -> None:
    store.close()
    site.start_worker(lease_seconds=0.5)
    job = await api.until((await api.submit()).id, lambda job: job.waiting_for and job.step)
    await api.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await api.ended(job.id)
    assert (job.status, job.artifacts) == (JobStatus.CANCELLED, [])
    store.open()


async def test_a_submission_that_brings_a_file_is_asked_to_come_back(
    api: Api, store: Store, redis: Client
) -> None:
    store.close()
    body = SPEC | {"lora": {"start": {"file": base64.b64encode(GOOD).decode()}}}
    answer = await api.http.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.http.get("/v1/jobs")).json()["jobs"] == []
    assert await redis.keys("dualprocess:job:*") == []
    store.open()
    assert (await api.http.post("/v1/jobs", json=body)).status_code == 202


async def test_a_file_that_can_not_be_read_now_is_to_be_asked_for_again(
    api: Api, store: Store, tmp_path: Path
) -> None:
    job = await api.submit(**sent(GOOD))
    url = f"/v1/jobs/{job.id}/artifacts/start.safetensors"
    store.close()
    for method in ("GET", "HEAD"):
        answer = await api.http.request(method, url)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    store.open()
    assert (await api.http.get(url)).content == GOOD
    [file] = (tmp_path / "artifacts").rglob("start.safetensors")
    file.unlink()
    for method in ("GET", "HEAD"):
        assert (await api.http.request(method, url)).status_code == 404
    gone = await api.http.get(url, headers={"Range": "bytes=0-3"})
    assert "is gone from the artifact store" in gone.json()["title"]


async def test_an_empty_file_is_there_or_is_not(api: Api, tmp_path: Path, redis: Client) -> None:
    job = await api.submit()
    artifact, path = await ArtifactStore((tmp_path / "artifacts").as_uri()).put(
        job.id, "1", "metrics.jsonl", b""
    )
    entry = f"{path} {artifact.model_dump_json()}"
    await redis.hset(artifacts_key(job.id), "metrics.jsonl", entry)
    url = f"/v1/jobs/{job.id}/artifacts/metrics.jsonl"
    answer = await api.http.get(url)
    assert (answer.status_code, answer.content) == (200, b"")
    (tmp_path / "artifacts" / path).unlink()
    assert (await api.http.get(url)).status_code == 404
