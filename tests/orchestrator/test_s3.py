"""Files in S3, over HTTP: whole jobs, signed downloads, and a store that hangs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from dualprocess import AsyncClient
from dualprocess.schemas import Job, JobStatus
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.artifacts import LORA_FILE, ArtifactStore
from services.orchestrator.store.redis import Client, artifacts_key
from tests.orchestrator.api_process import ApiProcess, api_process
from tests.orchestrator.conftest import Api, Site
from tests.orchestrator.s3_server import BUCKET, S3Server, s3_server
from tests.orchestrator.scripted import LORA, ScriptedGenerator
from tests.redis_server import RedisServer

#: How long a silent store is waited for in these tests.
SILENT_SECONDS = 1.0


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def artifacts(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """In place of the folder that other tests have."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/some/prefix"


@pytest.fixture
async def apart(redis_server: RedisServer, artifacts: str) -> AsyncIterator[ApiProcess]:
    """An API of its own process that signs downloads, and has little patience."""
    flags = ["--signed-downloads=60", f"--store-seconds={SILENT_SECONDS:g}"]
    async with api_process(redis_server.url, artifacts, *flags) as process:
        yield process


async def trained(api: Api, site: Site) -> Job:
    worker = site.start_worker(store_seconds=SILENT_SECONDS)
    job = await api.ended((await api.submit()).id)
    await site.stop(worker)
    assert job.status == JobStatus.SUCCEEDED, job.error
    return job


async def test_a_job_leaves_its_files_there_and_deletion_takes_them(
    api: Api, site: Site, s3: S3Server
) -> None:
    job = await trained(api, site)
    for artifact in job.artifacts:
        got = await api.http.get(f"/v1/jobs/{job.id}/artifacts/{artifact.name}")
        assert got.headers["content-type"].partition(";")[0] == artifact.media_type
        assert hashlib.sha256(got.content).hexdigest() == artifact.sha256
    url = f"/v1/jobs/{job.id}/artifacts/{LORA_FILE}"
    part = await api.http.get(url, headers={"Range": "bytes=2-3"})
    assert (part.status_code, part.content) == (206, LORA[2:4])
    listed = {"list-type": "2", "prefix": f"some/prefix/jobs/{job.id}/"}
    async with httpx.AsyncClient(base_url=s3.url) as store:
        assert LORA_FILE in (await store.get(f"/{BUCKET}", params=listed)).text
        await api.http.delete(f"/v1/jobs/{job.id}")
        assert "<Key>" not in (await store.get(f"/{BUCKET}", params=listed)).text


async def test_downloads_are_redirected_to_the_store_that_knows_what_they_are(
    api: Api, site: Site, s3: S3Server, apart: ApiProcess, tmp_path: Path
) -> None:
    job = await trained(api, site)
    async with httpx.AsyncClient(base_url=apart.url) as http:
        for artifact in job.artifacts:
            path = f"/v1/jobs/{job.id}/artifacts/{artifact.name}"
            told = await http.get(path)
            assert told.status_code == 307
            assert told.headers["location"].startswith(f"{s3.url}/{BUCKET}/some/prefix/jobs/")
            assert "X-Amz-Expires=60" in told.headers["location"]
            assert "no-store" in told.headers["cache-control"]
            got = await http.get(told.headers["location"])
            assert hashlib.sha256(got.content).hexdigest() == artifact.sha256
            assert got.headers["content-type"].partition(";")[0] == artifact.media_type
            name = f'attachment; filename="{artifact.name}"'
            assert got.headers["content-disposition"] == name
        # What the store would compare with another ETag, and what has no body, the API answers.
        etag = (await http.head(path)).headers["etag"]
        assert (await http.get(path, headers={"If-Match": etag})).status_code == 200
        assert (await http.get(path, headers={"If-None-Match": etag})).status_code == 304
        assert (await http.get(f"{path}.none")).status_code == 404
        # The store has no such file: the API makes it from the one that it has.
        made = await http.get(f"/v1/jobs/{job.id}/artifacts/adapter_model.safetensors")
        assert made.status_code == 200
        assert made.content.endswith(LORA[-96:])
    async with AsyncClient(apart.url) as client:
        assert await client.read_artifact(job.id, LORA_FILE) == LORA
        file = await client.download(job.id, LORA_FILE, tmp_path / "lora")
        assert file.read_bytes() == LORA


def test_a_folder_signs_nothing() -> None:
    with pytest.raises(ValidationError, match="needs --artifacts s3://"):
        ApiSettings(artifacts="file:///tmp/x", signed_downloads=60)


async def test_a_job_says_that_the_store_hangs_and_goes_on(
    api: Api, site: Site, s3: S3Server, generator: ScriptedGenerator
) -> None:
    first = await trained(api, site)
    start = {"lora": {"start": {"job": first.id}}}
    with s3.frozen():
        site.start_worker(store_seconds=SILENT_SECONDS, slots=2)
        # One has to write, the other to read before it can begin.
        jobs = [await api.submit(), await api.submit(**start)]
        for job in jobs:
            waiting = await api.until(job.id, lambda job: job.waiting_for)
            assert waiting.waiting_for is not None
            assert "the artifact store" in waiting.waiting_for
            assert "it does not answer" in waiting.waiting_for
    for job in jobs:
        ended = await api.ended(job.id)
        assert (ended.status, ended.attempt, ended.causes) == (JobStatus.SUCCEEDED, 1, [])
    assert generator.starts == [LORA]


async def test_no_download_hangs_with_the_store(
    api: Api, s3: S3Server, apart: ApiProcess, artifacts: str, redis: Client
) -> None:
    job = await api.submit()
    data = bytes(64 << 20)
    stored, path = await ArtifactStore(artifacts).put(job.id, "1", "metrics.jsonl", data)
    entry = f"{path} {stored.model_dump_json()}"
    await redis.hset(artifacts_key(job.id), "metrics.jsonl", entry)
    url = f"/v1/jobs/{job.id}/artifacts/metrics.jsonl"
    async with httpx.AsyncClient(base_url=apart.url, timeout=30) as http, asyncio.timeout(30):
        through = {"If-Match": f'"{stored.sha256}"'}
        got = 0
        # In the middle: it ends, and is no whole file.
        with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012
            async with http.stream("GET", url, headers=through) as answer:
                pieces = answer.aiter_raw()
                got += len(await anext(pieces))
                with s3.frozen():
                    async for piece in pieces:
                        got += len(piece)
        assert got < len(data)
        # Before it begins.
        with s3.frozen():
            late = await http.get(url, headers=through)
        assert (late.status_code, late.headers["retry-after"]) == (503, "2")
        assert "it does not answer" in late.json()["detail"]
        assert len((await http.get(url, headers=through)).content) == len(data)


async def test_a_bucket_that_is_not_there_is_said_and_costs_no_attempt(
    api: Api, site: Site, s3: S3Server, redis_server: RedisServer
) -> None:
    site.start_worker(artifacts="s3://another/prefix")
    said = "S3 says NoSuchBucket"
    job = await api.until((await api.submit()).id, lambda job: said in (job.waiting_for or ""))
    async with httpx.AsyncClient(base_url=s3.url) as store:
        (await store.put("/another")).raise_for_status()
    ended = await api.ended(job.id)
    assert (ended.status, ended.attempt) == (JobStatus.SUCCEEDED, 1)
    # The file is not where this API looks, but its bucket is: it is gone for good.
    url = f"/v1/jobs/{job.id}/artifacts/{LORA_FILE}"
    assert (await api.http.get(url)).status_code == 404
    lost = "s3://nobody/prefix"
    async with (
        api_process(redis_server.url, lost) as process,
        httpx.AsyncClient(base_url=process.url) as http,
    ):
        away = await http.get(url)
    assert away.status_code == 503
    assert said in away.json()["detail"]
