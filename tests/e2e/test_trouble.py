"""What a user sees when a process dies under a job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from dualprocess import Client, JobCancelled, JobStatus
from dualprocess.schemas import EventRecord, StatusEvent, StepEvent
from tests.e2e.conftest import LORA_FILE, losses, red_circle
from tests.e2e.stack import Stack

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Undisturbed:
    lora: bytes
    losses: list[float]


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> Undisturbed:
    with Client(stack.url) as client:
        job = client.wait(client.submit(red_circle(steps=12)).id)
        return Undisturbed(client.read_artifact(job.id, LORA_FILE), losses(client, job.id))


def until_step(events: Iterator[EventRecord], step: int) -> None:
    for record in events:
        if isinstance(record.event, StepEvent) and record.event.step >= step:
            return


def told_steps(client: Client, job_id: str) -> list[StepEvent]:
    """Every step that any attempt reported."""
    events = [record.event for record in client.events(job_id)]
    return [event for event in events if isinstance(event, StepEvent)]


def test_a_vlm_that_dies_is_waited_for(
    client: Client, stack: Stack, undisturbed: Undisturbed
) -> None:
    job = client.submit(red_circle(steps=12))
    until_step(client.events(job.id), 3)
    stack.child("services.vlm").kill()
    job = client.wait(job.id)
    waits = [
        record.event.waiting_for
        for record in client.events(job.id)
        if isinstance(record.event, StatusEvent) and record.event.waiting_for
    ]
    assert waits
    assert "the VLM tiny-idefics2 at" in waits[0]
    assert job.waiting_for is None
    assert job.attempt == 1
    assert client.read_artifact(job.id, LORA_FILE) == undisturbed.lora


def test_a_job_whose_generator_dies_goes_on_from_its_checkpoint(
    client: Client, stack: Stack, undisturbed: Undisturbed
) -> None:
    job = client.submit(red_circle(steps=12, checkpoint_every=2))
    until_step(client.events(job.id), 5)
    stack.child("services.generator").kill()
    job = client.wait(job.id)
    assert job.attempt == 2
    assert len(job.causes) == 1
    assert job.causes[0].startswith("attempt 1: the generator tiny-flux: ")
    assert client.read_artifact(job.id, LORA_FILE) == undisturbed.lora
    assert losses(client, job.id) == undisturbed.losses
    again = [event.step for event in told_steps(client, job.id) if event.attempt == 2]
    assert again[0] > 2, "it must have gone on from a checkpoint"
    assert again == list(range(again[0], 13))


def test_a_worker_that_is_stopped_suspends_its_job(
    client: Client, stack: Stack, undisturbed: Undisturbed
) -> None:
    job = client.submit(red_circle(steps=12, checkpoint_every=100))
    until_step(client.events(job.id), 3)
    stack.child("services.orchestrator.worker").terminate()
    job = client.wait(job.id)
    assert job.attempt == 1, "being stopped says nothing against the job"
    assert "the worker stopped" in job.causes[0]
    assert client.read_artifact(job.id, LORA_FILE) == undisturbed.lora
    assert losses(client, job.id) == undisturbed.losses
    assert [event.step for event in told_steps(client, job.id)] == list(range(1, 13))


def test_events_survive_their_server(client: Client, stack: Stack) -> None:
    """The API dies while a client listens; the client continues where it was."""
    job = client.submit(red_circle(steps=12))
    seen: list[EventRecord] = []

    def listen() -> None:
        with Client(stack.url) as listener:
            seen.extend(listener.events(job.id))

    listening = threading.Thread(target=listen)
    listening.start()
    until_step(client.events(job.id), 2)
    stack.child("services.orchestrator.api").kill()
    listening.join(120)
    assert not listening.is_alive()
    steps = [record.event.step for record in seen if isinstance(record.event, StepEvent)]
    assert steps == list(range(1, 13))


def test_cancel_keeps_what_was_learned(client: Client) -> None:
    job = client.submit(red_circle(steps=500))
    until_step(client.events(job.id), 2)
    client.cancel(job.id)
    with pytest.raises(JobCancelled):
        client.wait(job.id)
    job = client.job(job.id)
    assert job.status == JobStatus.CANCELLED
    assert 2 <= job.step < 500
    assert LORA_FILE in [artifact.name for artifact in job.artifacts]
    assert job.scores.lora is not None
