"""What API and worker count, as Prometheus reads it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from prometheus_client import REGISTRY

from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.queue import Queue
from services.orchestrator.store.redis import Client
from tests.orchestrator.conftest import ASKED, SPEC, Api, Site
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer

DEPTH = "dualprocess_queue_depth"
SITE = (
    "dualprocess_jobs",
    "dualprocess_jobs_running",
    "dualprocess_queue_running",
    "dualprocess_workers_live",
    DEPTH,
)


def total(name: str, *texts: str) -> float:
    """As ``sum(name)`` in Prometheus, over processes that show these texts."""
    found = [re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE) for text in texts]
    return sum(float(value) for values in found for value in values)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_sum_over_replicas_counts_each_job_once_whoever_is_asked_first(
    api: Api, redis_server: RedisServer, artifacts: str
) -> None:
    settings = ApiSettings(redis_url=redis_server.url, artifacts=artifacts)
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    await api.submit()
    await api.submit()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=ASKED) as other,
    ):
        for _ in range(2):
            texts = [(await other.get("/metrics")).text, (await api.http.get("/metrics")).text]
            assert total(DEPTH, *texts) == 2
            assert total("dualprocess_jobs", *texts) == 2
            for name in SITE:
                assert f"# HELP {name} " in texts[0]
                assert f"# HELP {name} " not in texts[1]
    # Whoever told it has ended; the other one tells it from now on.
    assert total(DEPTH, (await api.http.get("/metrics")).text) == 2


async def test_without_redis_a_process_still_tells_what_it_did(tmp_path: Path) -> None:
    away = RedisServer(tmp_path)
    app = create_app(ApiSettings(redis_url=away.url, artifacts=(tmp_path / "a").as_uri()))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        await http.get("/v1/jobs")
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert 'dualprocess_http_request_seconds_count{method="GET",route="/v1/jobs"' in answer.text
    assert DEPTH not in answer.text


async def test_a_route_is_counted_as_it_is_documented(api: Api) -> None:
    name = "dualprocess_http_request_seconds_count"
    before = {
        route: counted(name, method="GET", route=route, status="404")
        for route in ("/v1/jobs/{job_id}", "unknown")
    }
    await api.http.get(f"/v1/jobs/{'0' * 26}")
    await api.http.get("/dp_secret_key")
    await api.http.request("dp_secret", "/healthz")
    for route, count in before.items():
        assert counted(name, method="GET", route=route, status="404") == count + 1
    text = (await api.http.get("/metrics")).text
    assert "secret" not in text
    assert 'method="other"' in text


async def test_ends_are_counted_by_outcome_whoever_ends_a_job(api: Api, site: Site) -> None:
    name = "dualprocess_jobs_ended_total"
    before = {end: counted(name, outcome=end) for end in ("succeeded", "failed", "cancelled")}
    cancelled = await api.submit()
    await api.http.post(f"/v1/jobs/{cancelled.id}/cancel")
    batch = (await api.http.post("/v1/batches", json={"specs": [SPEC, SPEC]})).json()
    await api.http.post(f"/v1/batches/{batch['id']}/cancel")
    await api.http.post(f"/v1/batches/{batch['id']}/cancel")
    overdue = await api.submit(deadline=0.001)
    await api.ended(overdue.id)
    done = await api.submit()
    site.start_worker()
    await api.ended(done.id)
    for end, more in (("succeeded", 1), ("failed", 1), ("cancelled", 3)):
        assert counted(name, outcome=end) == before[end] + more, end


async def test_how_long_a_job_waited_counts_from_when_it_was_queued(
    api: Api, redis: Client, site: Site
) -> None:
    labels = {"generator": "tiny-flux", "vlms": "tiny-idefics2"}
    before = counted("dualprocess_queue_wait_seconds_sum", **labels)
    job = await api.submit()
    # As if that had been a minute ago.
    await redis.hincrby(f"dualprocess:job:{job.id}", "queued_at", -60_000)
    text = (await api.http.get("/metrics")).text
    assert 60 <= total("dualprocess_queue_head_wait_seconds", text) < 75
    site.start_worker()
    await api.ended(job.id)
    waited = counted("dualprocess_queue_wait_seconds_sum", **labels) - before
    assert 60 <= waited < 75


async def test_attempts_that_end_and_leases_that_are_over_are_counted(
    api: Api, redis: Client, site: Site, generator: ScriptedGenerator
) -> None:
    names = ("dualprocess_leases_expired_total", "dualprocess_attempts_retried_total")
    before = counted(names[0]), counted(names[1], blame="job")
    job = await api.submit()
    queue = Queue(redis, lease_ms=1)
    # A worker that takes the job and is never heard of again.
    assert await queue.claim("dead", ["dualprocess:queue:tiny-flux|tiny-idefics2"])
    site.start_worker()
    ended = await api.ended(job.id)
    assert ended.attempt == 2
    assert counted(names[0]) == before[0] + 1
    assert counted(names[1], blame="job") == before[1] + 1
