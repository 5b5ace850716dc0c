"""An artifact store that takes nothing for a while: jobs say so, wait, and go on."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dualprocess.schemas import JobStatus
from services.orchestrator.store.artifacts import LORA_FILE
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import SPEC, Api, Site
from tests.orchestrator.test_start import GOOD


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
    assert "the artifact store, which takes no files" in (job.waiting_for or "")
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
