"""What every family of generators must do, against plain diffusers on the same tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from dualprocess.schemas import ImageSettings, ResolvedImagesSpec, WorkPart
from dualprocess.v1 import generator_pb2 as pb
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import LORA_FILE, diffusers_file
from services.generator.lora.loaded import LoadedLoras
from services.orchestrator.work import images_work
from tests.generator.rows import ROWS, Row

PROMPT = "Photo of a man"
EVERY_IMAGE = [
    pytest.param(row, image, id=f"{row}-{image.width}x{image.height}-{index}")
    for row in ROWS
    for index, image in enumerate(row.images)
]
each_row = pytest.mark.parametrize("row", ROWS, ids=str)
each_image = pytest.mark.parametrize(("row", "image"), EVERY_IMAGE)


@cache
def loaded(row: Row) -> GeneratorFamily:
    """One generator for each row, for all tests; each test leaves it unchanged."""
    return row.load()


@cache
def plain(row: Row) -> Any:
    return row.plain()


def lora_spec(row: Row, rank: int = 4) -> pb.LoraSpec:
    targets = row.tiny.lora.target_modules
    return pb.LoraSpec(
        rank=rank, alpha=8, weight=5, target_modules=targets, init=pb.LORA_INIT_GAUSSIAN
    )


@pytest.fixture
def adapter(row: Row) -> Iterator[LoraAdapter]:
    """A LoRA that changes the image: lora_B is not zero."""
    adapter = LoraAdapter(loaded(row), "learned", lora_spec(row), seed=0)
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters:
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    yield adapter
    adapter.remove()


def exported(family: GeneratorFamily, adapter: LoraAdapter) -> bytes:
    return diffusers_file(adapter.tensors(), family, rank=4, title=PROMPT)


def drawn(family: GeneratorFamily, image: pb.ImageSpec, seed: int) -> torch.Tensor:
    """The service's image [1, 3, height, width] in [0, 1], with the adapter that is active."""
    conditioning, schedule = family.encode(PROMPT, image), family.schedule(image)
    noise = family.noise([seed], image)
    latents = family.sample(noise, conditioning, schedule, until=len(schedule))
    with torch.no_grad():
        return (family.decode(latents, image) / 2 + 0.5).clamp(0, 1)


@each_image
def test_the_image_is_the_plain_pipelines(row: Row, image: pb.ImageSpec) -> None:
    ours, theirs = drawn(loaded(row), image, 7), row.draw(plain(row), PROMPT, image, 7)
    assert ours.shape == theirs.shape == (1, 3, image.height, image.width)
    assert (ours - theirs).abs().max() <= 1e-4


@each_image
def test_a_picture_takes_the_passes_that_are_counted_as_its_work(
    row: Row, image: pb.ImageSpec
) -> None:
    """The service limits the work of a job by its spec; guidance and sampler do no more than
    that."""
    family, passes = loaded(row), 0

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal passes
        passes += len(output[0])

    hook = family.denoiser.register_forward_hook(note)
    drawn(family, image, 7)
    hook.remove()
    settings = ImageSettings(
        width=image.width,
        height=image.height,
        num_inference_steps=image.num_inference_steps,
        guidance_scale=image.guidance_scale,
    )
    spec = ResolvedImagesSpec(
        prompt=PROMPT,
        generator=row.preset,
        seeds=[7],
        loras=[],
        image=settings,
        questions=[],
        question_postfix="",
        vlm=None,
    )
    counted = images_work(spec, row.tiny).parts[WorkPart.PICTURES]
    assert passes * image.width * image.height == counted


@each_image
def test_the_schedule_is_the_plain_pipelines(row: Row, image: pb.ImageSpec) -> None:
    """Index i is the same noise level for sampling, for training and for diffusers."""
    seen: list[float] = []

    def note(_pipeline: Any, _index: int, timestep: torch.Tensor, _kwargs: Any) -> dict[str, Any]:
        seen.append(float(timestep))
        return {}

    row.draw(plain(row), PROMPT, image, 7, callback_on_step_end=note)
    schedule = loaded(row).schedule(image)
    assert schedule.timesteps.tolist() == pytest.approx(seen)
    assert len(schedule.sigmas) == len(schedule) + 1
    assert (schedule.sigmas[:-1] > schedule.sigmas[1:]).all()


@each_image
def test_a_constant_prediction_means_the_same_clean_latents_everywhere(
    row: Row, image: pb.ImageSpec
) -> None:
    """Sampling and the prediction of x0 agree on what a prediction says, at every index."""
    if row.ancestral:
        pytest.skip("this sampler draws noise of its own between two steps")
    family = loaded(row)
    schedule = family.schedule(image)
    latents, prediction = family.noise([1], image), family.noise([2], image)
    first = family.predict_x0(latents, prediction, schedule, 0)
    for index in range(len(schedule)):
        clean = family.predict_x0(latents, prediction, schedule, index)
        torch.testing.assert_close(clean, first, atol=1e-3, rtol=1e-3)
        latents = family.advance(latents, prediction, schedule, index)


@each_row
def test_a_batch_is_its_images(row: Row) -> None:
    family, image = loaded(row), row.images[0]
    conditioning, schedule = family.encode(PROMPT, image), family.schedule(image)
    noise = family.noise([1, 2], image)
    assert torch.equal(noise, torch.cat([family.noise([1], image), family.noise([2], image)]))
    with torch.no_grad():
        both = family.denoise(noise, conditioning, schedule, 0)
        alone = [family.denoise(noise[i : i + 1], conditioning, schedule, 0) for i in (0, 1)]
    torch.testing.assert_close(both, torch.cat(alone), atol=1e-4, rtol=1e-4)


@each_row
def test_an_exported_lora_gives_plain_diffusers_the_services_image(
    row: Row, adapter: LoraAdapter, tmp_path: Path
) -> None:
    image = row.images[0]
    with adapter.active():
        ours = drawn(loaded(row), image, 5)
    (tmp_path / LORA_FILE).write_bytes(exported(loaded(row), adapter))
    fresh = row.plain()
    base = row.draw(fresh, PROMPT, image, 5)
    fresh.load_lora_weights(tmp_path)
    theirs = row.draw(fresh, PROMPT, image, 5)
    assert (ours - theirs).abs().max() <= 0.5e-4
    assert (base - theirs).abs().max() > 0.01, "the LoRA must matter, or this shows nothing"


@each_row
def test_the_service_reads_its_own_lora(row: Row, adapter: LoraAdapter) -> None:
    family, image = loaded(row), row.images[0]
    with adapter.active():
        learned = drawn(family, image, 5)
    base = drawn(family, image, 5)
    again = LoadedLoras(family, "again", [exported(family, adapter)], [1.0])
    with again.active():
        read = drawn(family, image, 5)
    again.close()
    assert (read - learned).abs().max() <= 0.5e-4
    assert (drawn(family, image, 5) == base).all()


@each_row
def test_the_gradient_is_the_slope(row: Row, adapter: LoraAdapter) -> None:
    """Central differences along the LoRA's gradient, through denoiser, x0 and decoder."""
    family, image = loaded(row), row.images[0]
    conditioning, schedule = family.encode(PROMPT, image), family.schedule(image)
    index = len(schedule) - 1
    with adapter.active():
        latents = family.sample(family.noise([3], image), conditioning, schedule, until=index)
    weights = torch.randn(
        (1, 3, image.height, image.width), generator=torch.Generator().manual_seed(1)
    )

    def value() -> torch.Tensor:
        model_pred = family.denoise(latents, conditioning, schedule, index)
        x0 = family.predict_x0(latents, model_pred, schedule, index)
        return (family.decode(x0, image) * weights).mean()

    with adapter.active():
        torch.autograd.backward(value())
        gradients = [parameter.grad for parameter in adapter.parameters]
        found = [gradient for gradient in gradients if gradient is not None]
        assert len(found) == len(adapter.parameters)
        norm = torch.stack([gradient.norm() for gradient in found]).norm()
        reach = row.reach
        ends = []
        with torch.no_grad():
            for sign in (1, -2):
                for parameter, gradient in zip(adapter.parameters, found, strict=True):
                    parameter.add_(sign * reach * gradient / norm)
                ends.append(value().double())
    slope = (ends[0] - ends[1]) / (2 * reach)
    assert float(slope) == pytest.approx(float(norm), rel=0.02)


@each_row
def test_lora_and_gradients_are_float32_over_a_bfloat16_base(row: Row) -> None:
    family, image = row.load("bfloat16"), row.images[0]
    adapter = LoraAdapter(family, "small", lora_spec(row), seed=0)
    assert {parameter.dtype for parameter in adapter.parameters} == {torch.float32}
    conditioning, schedule = family.encode(PROMPT, image), family.schedule(image)
    noise = family.noise([0], image)
    with adapter.active():
        model_pred = family.denoise(noise, conditioning, schedule, 0)
        images = family.decode(family.predict_x0(noise, model_pred, schedule, 0), image)
        torch.autograd.backward(images, torch.ones_like(images))
    assert images.dtype == torch.bfloat16
    assert images.is_contiguous()
    moved = [p.grad for p in adapter.parameters if p.grad is not None and p.grad.abs().max() > 0]
    assert moved
    assert {gradient.dtype for gradient in moved} == {torch.float32}


@each_row
def test_text_encoders_run_once_for_a_prompt(row: Row) -> None:
    family, image = loaded(row), row.images[0]
    assert family.encode("a new prompt", image) is family.encode("a new prompt", image)
    assert family.encode("another one", image) is not family.encode("a new prompt", image)
