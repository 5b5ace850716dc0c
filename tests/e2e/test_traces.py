"""A job is one trace, over all processes of a real stack."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from dualprocess import Client, Job
from dualprocess.schemas import BatchRequest
from tests.collector import Collector, Seen, collecting
from tests.e2e.conftest import red_circle
from tests.e2e.stack import Stack, running

pytestmark = pytest.mark.timeout(240)
API, WORKER, GENERATOR, VLM = (
    f"dualprocess-{name}" for name in ("api", "worker", "generator", "vlm")
)


@dataclass(frozen=True)
class Traced:
    stack: Stack
    collector: Collector
    job: Job
    of_batch: Job


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    """A job and a batch of one, on a stack whose traces are collected."""
    with pytest.MonkeyPatch.context() as environment, collecting() as collector:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        with running(tmp_path_factory.mktemp("traced")) as stack, Client(stack.url) as client:
            spec = red_circle(steps=3)
            batch = client.submit_batch(BatchRequest(specs=[spec]))
            jobs = [client.wait(one) for one in (client.submit(spec).id, batch.jobs[0].id)]
            httpx.get(f"{stack.url}/v1/nothing/dp_0123_secret?key=dp_0123_secret")
            _until(lambda: len(collector.named(WORKER, "job")) == 2)
        # Every process has sent what it had when it ended.
        yield Traced(stack, collector, *jobs)


def _until(ready: object) -> None:
    assert callable(ready)
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end, "the spans did not come"
        time.sleep(0.1)


def _root(span: Seen, spans: dict[str, Seen]) -> list[Seen]:
    """The span and those that it is part of, up to the first."""
    path = [span]
    while path[-1].parent:
        path.append(spans[path[-1].parent])
    return path


def test_every_call_of_a_vlm_leads_back_to_the_request_that_asked_for_the_job(
    traced: Traced,
) -> None:
    spans = {span.id: span for span in traced.collector.spans}
    (request,) = traced.collector.named(API, "POST /v1/jobs")
    (job,) = [
        span
        for span in traced.collector.named(WORKER, "job")
        if span.attributes["dualprocess.job"] == traced.job.id
    ]
    assert (job.trace, job.parent) == (request.trace, request.id)
    assert job.attributes["dualprocess.outcome"] == "succeeded"
    (queue,) = [span for span in traced.collector.named(WORKER, "queue") if span.parent == job.id]
    assert queue.trace == job.trace
    guided, scored = (
        [
            _root(span, spans)
            for span in traced.collector.named(VLM, f"/dualprocess.v1.Vlm/{method}")
            if span.trace == job.trace
        ]
        for method in ("Guide", "Score")
    )
    assert len(guided) == 3, "a call a step"
    for path in guided:
        assert [span.service for span in path] == [VLM, GENERATOR, GENERATOR, WORKER, WORKER, API]
        assert path[-2:] == [job, request]
    assert scored
    for path in scored:
        assert [span.service for span in path] == [VLM, WORKER, WORKER, API]


def test_a_job_of_a_batch_has_a_trace_of_its_own(traced: Traced) -> None:
    (request,) = traced.collector.named(API, "POST /v1/batches")
    (job,) = [
        span
        for span in traced.collector.named(WORKER, "job")
        if span.attributes["dualprocess.job"] == traced.of_batch.id
    ]
    assert not job.parent
    assert job.trace != request.trace
    calls = traced.collector.named(VLM, "/dualprocess.v1.Vlm/Guide")
    assert len([span for span in calls if span.trace == job.trace]) == 3


def test_redis_is_part_of_what_asks_it_and_nothing_else_is_recorded(traced: Traced) -> None:
    asked = [span for span in traced.collector.spans if "db.system" in span.attributes]
    assert {span.service for span in asked} == {API, WORKER}
    first = {span.name for span in traced.collector.spans if not span.parent}
    assert first <= {"job", *(name for name in first if name.startswith(("GET", "POST")))}
    assert not any("metrics" in name or "readyz" in name for name in first)


def test_no_span_has_what_somebody_sent(traced: Traced) -> None:
    for span in traced.collector.spans:
        assert not any(word in span.raw for word in ("circle", "red?", "dp_0123")), span.raw
