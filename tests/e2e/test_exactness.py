"""Two services learn the same as one process would, and the same each time."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image

from dualprocess import Client, Job
from dualprocess.schemas import ResolvedJobSpec, StepEvent
from models.training.one_process import OneProcess
from services.common.presets import load_presets
from tests.e2e.conftest import LORA_FILE, losses, red_circle


@pytest.fixture(scope="module")
def alone(stack: object) -> dict[int, tuple[Job, list[float], bytes]]:
    """Jobs that ran one after the other, by seed: the job, its losses, its LoRA."""
    done = {}
    with Client(stack.url) as client:  # type: ignore[attr-defined]
        for seed in (100, 101):
            job = client.wait(client.submit(red_circle(seed=seed)).id)
            lora = client.read_artifact(job.id, LORA_FILE)
            done[seed] = (job, losses(client, job.id), lora)
    return done


Alone = dict[int, tuple[Job, list[float], bytes]]


def test_services_equal_one_process(alone: Alone) -> None:
    job, service_losses, lora = alone[100]
    assert isinstance(job.spec, ResolvedJobSpec)
    here = OneProcess(job.spec)
    assert service_losses == pytest.approx([here.step().loss for _ in range(job.steps)], abs=1e-5)
    assert lora == here.lora()


def test_the_same_spec_gives_the_same_bytes(client: Client, alone: Alone) -> None:
    first, first_losses, lora = alone[100]
    again = client.wait(client.submit(red_circle()).id)
    assert losses(client, again.id) == first_losses
    assert {a.name: a.sha256 for a in again.artifacts} == {
        a.name: a.sha256 for a in first.artifacts
    }
    assert alone[101][2] != lora, "another seed must give another LoRA, or this shows nothing"


def test_interleaved_jobs_give_the_bytes_of_single_ones(client: Client, alone: Alone) -> None:
    ids = [client.submit(red_circle(seed=seed)).id for seed in (100, 101)]
    for seed, job_id in zip((100, 101), ids, strict=True):
        client.wait(job_id)
        assert client.read_artifact(job_id, LORA_FILE) == alone[seed][2]
    moments = [
        (record.id, job_id)
        for job_id in ids
        for record in client.events(job_id)
        if isinstance(record.event, StepEvent)
    ]
    order = [job_id for _, job_id in sorted(moments)]
    changes = sum(left != right for left, right in itertools.pairwise(order))
    assert changes > 2, "the jobs must have taken turns"


def test_plain_diffusers_draws_the_services_image(
    client: Client, alone: Alone, tmp_path: Path
) -> None:
    job = alone[100][0]
    client.download(job.id, LORA_FILE, tmp_path / LORA_FILE)
    preset = load_presets().generator("tiny-flux")
    pipeline = FluxPipeline.from_pretrained(preset.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path)
    drawn = pipeline(
        "a circle",
        width=64,
        height=64,
        num_inference_steps=1,
        guidance_scale=0.0,
        max_sequence_length=preset.max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(0),
        output_type="np",
    ).images[0]
    service = _pixels(client, job, "lora-0.png")
    # The service saved 8 bits: half a level, and 1e-4.
    assert np.abs(drawn - service).max() <= 0.5 / 255 + 1e-4
    assert np.abs(_pixels(client, job, "base-0.png") - service).max() > 2 / 255


def _pixels(
    client: Client, job: Job, name: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(io.BytesIO(client.read_artifact(job.id, name)))) / 255
