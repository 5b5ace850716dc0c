"""Redis and the artifact store, lost and restored from a backup."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from dualprocess.schemas import Job, JobStatus
from services.orchestrator.backup.__main__ import app
from services.orchestrator.backup.folder import BackupFolder
from services.orchestrator.backup.save import save
from services.orchestrator.store.artifacts import ArtifactStore
from services.orchestrator.store.keys import ApiKeys, Scope
from services.orchestrator.store.quotas import Quotas
from services.orchestrator.store.redis import Client, connect, job_key
from tests.orchestrator.conftest import QUOTAS, Api, Site, on_each_redis
from tests.orchestrator.scripted import ScriptedGenerator, checkpoint_file
from tests.redis_server import INSTALLED, WHEEL, RedisServer
from tests.sentinels import Watched, watched

#: A checkpoint after each step.
EACH_STEP = {"optimizer": {"steps": 3, "checkpoint_every": 1}}


async def command(*arguments: object) -> Result:
    """What `dualprocess backup` and `dualprocess restore` become."""
    outside = {name: None for name in os.environ if name.startswith("DUALPROCESS_")}
    runner = CliRunner(env={**outside, "REDIS_URL": None})
    return await asyncio.to_thread(runner.invoke, app, [str(part) for part in arguments])


def told(result: Result) -> str:
    return " ".join(result.output.split())


async def contents(api: Api, job: Job) -> dict[str, str]:
    """The SHA-256 of each file that can be downloaded."""
    found = {}
    for artifact in job.artifacts:
        answer = await api.http.get(f"/v1/jobs/{job.id}/artifacts/{artifact.name}")
        assert answer.status_code == 200, answer.text
        found[artifact.name] = hashlib.sha256(answer.content).hexdigest()
    return found


@on_each_redis
async def test_every_job_comes_back_and_goes_on(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    redis: Client,
    redis_server: RedisServer,
    artifacts: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    key = await ApiKeys(redis).create("anna", {Scope.READ}, Quotas.model_validate(QUOTAS))
    worker = site.start_worker(slots=1)
    done = await api.ended((await api.submit(**EACH_STEP)).id)
    files = await contents(api, done)
    assert files

    generator.go.clear()
    running, *waiting = [await api.submit(**EACH_STEP) for _ in range(3)]
    running = await api.until(running.id, lambda job: job.checkpoint == 1)
    events = (await api.http.get("/v1/jobs")).json()
    stores = ["--redis-url", redis_server.url, "--artifacts", artifacts]
    made = await command("save", tmp_path / "backup", *stores)
    assert made.exit_code == 0, made.output
    assert "4 jobs (2 queued, 1 running, 1 succeeded), 1 API keys" in told(made)
    for path in [tmp_path / "backup", *(tmp_path / "backup").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    await site.stop(worker)
    await redis.flushdb()
    shutil.rmtree(urlsplit(artifacts).path)
    assert (await api.http.get(f"/v1/jobs/{done.id}")).status_code == 404

    restored = await command("restore", tmp_path / "backup", *stores, "--json")
    assert restored.exit_code == 0, restored.output
    assert json.loads(restored.stdout)["jobs"] == {"queued": 2, "running": 1, "succeeded": 1}
    assert (await api.http.get("/v1/jobs")).json()["jobs"][-1] == events["jobs"][-1]
    assert await contents(api, await api.job(done.id)) == files
    record_property("jobs back", sum(json.loads(restored.stdout)["jobs"].values()))
    record_property("files with the same bytes", len(files))
    assert await ApiKeys(redis).find(key)
    interrupted = await api.job(running.id)
    assert (interrupted.status, interrupted.attempt) == (JobStatus.QUEUED, 0), "no attempt is lost"
    assert interrupted.causes == ["attempt 1: the service was restored from a backup"]

    generator.go.set()
    before = len(generator.resumes)
    site.start_worker(slots=1)
    for job in (running, *waiting):
        ended = await api.ended(job.id)
        assert (ended.status, ended.step, ended.attempt) == (JobStatus.SUCCEEDED, 3, 1)
        assert (await contents(api, ended)).keys() == files.keys()
    assert generator.resumes[before:] == [checkpoint_file(1)], "it went on where it had been"


async def test_a_restore_is_refused_where_it_would_mix_or_damage(
    api: Api, redis: Client, redis_server: RedisServer, artifacts: str, tmp_path: Path
) -> None:
    job = await api.submit()
    backup, stores = tmp_path / "backup", ["--redis-url", redis_server.url]
    stores += ["--artifacts", artifacts]
    assert (await command("save", backup, *stores)).exit_code == 0

    again = await command("save", backup, *stores)
    assert (again.exit_code, "is not empty; name a new folder" in told(again)) == (2, True)
    full = await command("restore", backup, *stores)
    assert full.exit_code == 2
    assert "this Redis already has 1 jobs and 0 API keys; restore into an empty one" in told(full)
    assert (await api.job(job.id)).status == JobStatus.QUEUED

    await redis.flushdb()
    nothing = await command("restore", tmp_path / "nothing", *stores)
    assert (
        nothing.exit_code,
        "is not a backup, or one that was not finished" in told(nothing),
    ) == (
        2,
        True,
    )
    records = backup / "records.jsonl"
    whole = records.read_text()
    records.write_text(whole.replace(job.id, job.id[::-1]))
    damaged = await command("restore", backup, *stores)
    assert (damaged.exit_code, "is damaged; use another backup" in told(damaged)) == (
        2,
        True,
    )
    assert await redis.dbsize() == 0
    records.write_text(whole)
    assert (await command("restore", backup, *stores)).exit_code == 0
    assert (await api.job(job.id)).id == job.id


async def test_files_that_are_gone_are_named_and_the_rest_is_kept(
    api: Api, site: Site, redis_server: RedisServer, artifacts: str, tmp_path: Path
) -> None:
    site.start_worker()
    job = await api.ended((await api.submit()).id)
    (lost,) = Path(urlsplit(artifacts).path).rglob("metrics.jsonl")  # noqa: ASYNC240
    lost.unlink()
    stores = ["--redis-url", redis_server.url, "--artifacts", artifacts]
    made = await command("save", tmp_path / "backup", *stores)
    assert made.exit_code == 1
    assert "1 files of jobs are missing in the artifact store, or changed: jobs/" in told(made)
    (manifest, _) = BackupFolder(tmp_path / "backup").read()
    assert [Path(path).name for path in manifest.missing] == ["metrics.jsonl"]
    assert len(manifest.files) == len(job.artifacts) - 1


class Dropping(ArtifactStore):
    """Its first checkpoint goes, with its record, when it is about to be read: as its job's worker
    drops it behind newer ones."""

    redis: Client
    job_id: str
    dropped = False

    async def read(self, path: str) -> bytes:
        if "checkpoints" in path and not self.dropped:
            self.dropped = True
            await self.delete([path])
            await self.redis.hdel(job_key(self.job_id), "checkpoints")
        return await super().read(path)


async def test_a_checkpoint_that_goes_meanwhile_is_no_loss(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    redis: Client,
    redis_server: RedisServer,
    artifacts: str,
    tmp_path: Path,
) -> None:
    generator.go.clear()
    site.start_worker()
    job = await api.submit(**EACH_STEP)
    await api.until(job.id, lambda job: job.checkpoint == 1)
    store = Dropping(artifacts)
    store.redis, store.job_id = redis, job.id
    folder = BackupFolder(tmp_path / "backup")
    folder.make()
    binary = connect(redis_server.url, retries=1, decodes=False)
    manifest = await save(binary, store, folder)
    await binary.aclose()
    assert (store.dropped, manifest.missing) == (True, [])


@pytest.mark.skipif(INSTALLED is None, reason="needs redis-server on the PATH")
async def test_an_older_redis_is_refused_before_anything_is_written(
    api: Api, redis_server: RedisServer, artifacts: str, tmp_path: Path
) -> None:
    await api.submit()
    stores = ["--artifacts", artifacts, "--redis-url"]
    assert (await command("save", tmp_path / "b", *stores, redis_server.url)).exit_code == 0
    older = RedisServer(tmp_path, WHEEL)
    older.start()
    try:
        refused = await command("restore", tmp_path / "b", *stores, older.url)
        with Redis.from_url(older.url) as client:
            assert client.dbsize() == 0
    finally:
        older.stop()
    assert refused.exit_code == 2
    assert "whose records this Redis 6.2" in told(refused)


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Watched]:
    (tmp_path / "redis").mkdir()
    with watched(tmp_path / "redis") as site:
        yield site


async def test_both_find_the_master_behind_sentinels(
    sentinels: Watched, artifacts: str, tmp_path: Path
) -> None:
    redis = connect(sentinels.url, retries=3)
    key = await ApiKeys(redis).create("anna", {Scope.READ}, Quotas.model_validate(QUOTAS))
    stores = ["--redis-url", sentinels.url, "--artifacts", artifacts]
    made = await command("save", tmp_path / "backup", *stores)
    assert made.exit_code == 0, made.output
    await redis.flushdb()
    restored = await command("restore", tmp_path / "backup", *stores)
    assert restored.exit_code == 0, restored.output
    found = await ApiKeys(redis).find(key)
    await redis.aclose()
    assert found is not None


@pytest.mark.parametrize("executable", dict.fromkeys([WHEEL, INSTALLED or WHEEL]))
def test_dump_rdb_beside_an_append_only_file_restores_nothing(
    tmp_path: Path, executable: str
) -> None:
    """Why there is a command of our own: what a dump is believed to be, it is not."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    server = RedisServer(first, executable)
    server.start()
    with Redis.from_url(server.url) as client:
        client.set("job", "1")
        client.save()
    server.stop()
    shutil.copy(first / "dump.rdb", second)
    again = RedisServer(second, executable)
    again.start()
    with Redis.from_url(again.url) as client:
        found = client.dbsize()
    again.stop()
    assert found == 0
