"""A generator whose jobs fail while its process lives, and a healthy one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dualprocess.schemas import JobStatus
from dualprocess.v1 import generator_pb2_grpc
from services.common.blame import by_nobody
from tests.orchestrator.conftest import Api, Site, grpc_server
from tests.orchestrator.scripted import ScriptedGenerator


@pytest.fixture
async def other(site: Site) -> AsyncIterator[tuple[ScriptedGenerator, Site]]:
    """A second generator, with its place for workers."""
    other = ScriptedGenerator()
    other.device_id = "GPU-2"
    async with grpc_server(
        lambda s: generator_pb2_grpc.add_GeneratorServicer_to_server(other, s)
    ) as target:
        place = Site(site.settings.model_copy(update={"generator": target}), {})
        yield other, place
        for worker in list(place.workers):
            await place.stop(worker)


async def test_one_of_two_generators_that_fails_every_call_loses_no_job(
    api: Api,
    site: Site,
    generator: ScriptedGenerator,
    other: tuple[ScriptedGenerator, Site],
    record_property: Callable[[str, object], None],
) -> None:
    generator.fails = (grpc.StatusCode.INTERNAL, "AcceleratorError: an illegal memory access", ())
    well, place = other
    site.start_worker(attempts=1)
    place.start_worker(attempts=1)
    await api.until_live(2)
    jobs = [await api.submit() for _ in range(8)]
    ended = [await api.ended(job.id) for job in jobs]
    assert [(job.status, job.attempt) for job in ended] == [(JobStatus.SUCCEEDED, 1)] * 8
    told = [job for job in ended if job.causes]
    record_property("jobs lost", sum(job.status != JobStatus.SUCCEEDED for job in ended))
    record_property("jobs that the sick one had", len(told))
    assert told, "the sick one was asked, too"
    for job in told:
        (cause,) = job.causes
        assert cause.startswith("attempt 1: the generator tiny-flux: AcceleratorError: an illegal")
    assert len(well.served) == 8


async def test_a_job_that_two_devices_fail_ends_with_both_errors(
    api: Api, site: Site, generator: ScriptedGenerator, other: tuple[ScriptedGenerator, Site]
) -> None:
    generator.fails = (grpc.StatusCode.INTERNAL, "it broke here", ())
    other[0].fails = (grpc.StatusCode.INTERNAL, "and there", ())
    site.start_worker(attempts=9)
    other[1].start_worker(attempts=9)
    await api.until_live(2)
    job = await api.ended((await api.submit()).id)
    assert job.status == JobStatus.FAILED
    assert job.error is not None
    for text in ("it broke here", "and there", "GPU-1", "GPU-2"):
        assert text in job.error


async def test_one_device_alone_fails_a_job_twice_at_most(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.fails = (grpc.StatusCode.INTERNAL, "it broke", ())
    site.start_worker(attempts=9)
    job = await api.ended((await api.submit()).id)
    assert (job.status, len(job.causes)) == (JobStatus.FAILED, 2)


async def test_what_a_generator_ends_for_its_own_reason_costs_no_attempt(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.fails = (grpc.StatusCode.UNAVAILABLE, "device fault of GPU-1: ...", by_nobody())
    generator.failures = 4
    site.start_worker(attempts=1)
    job = await api.ended((await api.submit()).id)
    assert (job.status, job.attempt, len(job.causes)) == (JobStatus.SUCCEEDED, 1, 4)
    assert "device fault" in job.causes[0]


async def test_a_generator_that_suspends_its_jobs_by_itself_costs_no_attempt(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    generator.go.clear()
    site.start_worker(attempts=1)
    job = await api.submit(optimizer={"steps": 3, "checkpoint_every": 100})
    await api.until(job.id, lambda job: job.step == 1)
    generator.suspend()
    generator.go.set()
    job = await api.ended(job.id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    assert job.causes == ["attempt 1: the generator tiny-flux was told to stop"]
    assert generator.resumes, "it went on where it was"


@contextlib.asynccontextmanager
async def _with_health(
    generator: ScriptedGenerator,
) -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    servicer = health.aio.HealthServicer()

    def register(server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServicer_to_server(generator, server)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    async with grpc_server(register) as target:
        yield target, servicer


async def test_nothing_is_claimed_for_a_generator_that_is_not_serving(
    api: Api, site: Site, generator: ScriptedGenerator
) -> None:
    async with _with_health(generator) as (target, servicer):
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        worker = site.start_worker(generator=target)
        await api.ended((await api.submit()).id)
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        await api.until_live(0)
        job = await api.submit()
        await api.until(job.id, lambda job: "none is alive" in (job.waiting_for or ""))
        await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        assert (await api.ended(job.id)).status == JobStatus.SUCCEEDED
        await site.stop(worker)
