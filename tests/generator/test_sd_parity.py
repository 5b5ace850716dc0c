"""Stable Diffusion against tensors recorded with other releases of diffusers and peft, float32 on a
CPU, and the sampler's steps against diffusers' own schedulers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from safetensors.torch import load_file

from dualprocess.v1 import generator_pb2 as pb
from services.common.presets import PresetError
from services.generator.families.base import GeneratorFamily
from services.generator.families.stable_diffusion import StableDiffusion
from services.generator.lora.adapter import LoraAdapter
from tests.generator.conftest import PARITY
from tests.generator.rows import ROWS, Row
from tests.generator.specs import image_spec

IMAGE = image_spec(num_inference_steps=5, guidance_scale=7.5)
STEPS = range(5)
WITH_GRADIENT = (0, 4)
(SD,) = (row for row in ROWS if row.preset == "sd-1.4")
(SDXL,) = (row for row in ROWS if row.preset == "sdxl-turbo")


@pytest.fixture(scope="module")
def family() -> GeneratorFamily:
    return SD.load()


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(PARITY / "generator-sd-1.4.safetensors")
    return tensors


@pytest.fixture(scope="module")
def facts() -> Any:
    return json.loads((PARITY / "generator-sd-1.4.json").read_text())


@pytest.fixture
def adapter(
    family: GeneratorFamily, recorded: dict[str, torch.Tensor], facts: Any
) -> Iterator[LoraAdapter]:
    lora = facts["lora"]
    spec = pb.LoraSpec(
        rank=lora["rank"],
        alpha=lora["alpha"],
        weight=lora["weight"],
        target_modules=SD.tiny.lora.target_modules,
        init=pb.LORA_INIT_GAUSSIAN,
    )
    adapter = LoraAdapter(family, "recorded", spec, seed=0)
    for name, parameter in adapter.named_parameters.items():
        parameter.data.copy_(recorded[f"lora.{name}"])
    yield adapter
    adapter.remove()


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.detach() - wanted).abs().max() / wanted.abs().max())


def test_prompt(family: GeneratorFamily, recorded: dict[str, torch.Tensor], facts: Any) -> None:
    """Negative prompt first, as recorded."""
    conditioning = family.encode(facts["prompt"], IMAGE)
    wanted = recorded["prompt.encoder_hidden_states"]
    assert conditioning["encoder_hidden_states"].shape == wanted.shape == (2, 77, 32)
    assert error(conditioning["encoder_hidden_states"], wanted) < 1e-4


def test_schedule(family: GeneratorFamily, facts: Any) -> None:
    schedule = family.schedule(IMAGE)
    assert schedule.timesteps.tolist() == facts["timesteps"]
    alphas_bar = torch.tensor([step["alpha_bar"] for step in facts["steps"]])
    assert torch.equal(schedule.sigmas[:-1], ((1 - alphas_bar) / alphas_bar).sqrt())
    # The image ends at alpha_bar[0] = 1 - beta_start, not at 1.
    last = 1 - facts["scheduler_config"]["beta_start"]
    assert float(schedule.sigmas[-1]) == pytest.approx(((1 - last) / last) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("index", STEPS)
def test_prediction_image_and_lora_gradient(
    family: GeneratorFamily, adapter: LoraAdapter, recorded: dict[str, torch.Tensor], index: int
) -> None:
    schedule = family.schedule(IMAGE)
    latents = recorded["noise" if index == 0 else f"step{index}.latents"]
    with adapter.active():
        model_pred = family.denoise(latents, prompt(recorded), schedule, index)
        x0 = family.predict_x0(latents, model_pred, schedule, index)
        images = family.decode(x0, IMAGE)
        torch.autograd.backward(images, load_file(PARITY / "image_grad.safetensors")["image_grad"])
    assert error(model_pred, recorded[f"step{index}.model_pred"]) < 1e-4
    assert error(x0, recorded[f"step{index}.x0"]) < 1e-4
    assert error(images, recorded[f"step{index}.image"]) < 1e-4
    if index not in WITH_GRADIENT:
        return
    assert len(adapter.named_parameters) == 64
    for name, parameter in adapter.named_parameters.items():
        assert parameter.grad is not None
        wanted = recorded[f"step{index}.grad.{name}"]
        assert float((parameter.grad - wanted).norm() / wanted.norm()) < 1e-3, name


def test_latents_of_every_step(
    family: GeneratorFamily, adapter: LoraAdapter, recorded: dict[str, torch.Tensor]
) -> None:
    """Sampled from the noise, so that errors may add up."""
    schedule = family.schedule(IMAGE)
    with adapter.active():
        for index in STEPS[1:]:
            latents = family.sample(recorded["noise"], prompt(recorded), schedule, until=index)
            assert error(latents, recorded[f"step{index}.latents"]) < 1e-4


@pytest.mark.parametrize("weight", [0, 5])
def test_finished_image(
    family: GeneratorFamily, adapter: LoraAdapter, recorded: dict[str, torch.Tensor], weight: int
) -> None:
    """An idle LoRA changes nothing; an active one what it did when recorded."""
    schedule = family.schedule(IMAGE)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        latents = family.sample(recorded["noise"], prompt(recorded), schedule, len(schedule))
        with torch.no_grad():
            return latents, family.decode(latents, IMAGE)

    if weight:
        with adapter.active():
            latents, images = draw()
    else:
        latents, images = draw()
    assert error(latents, recorded[f"final.w{weight}.latents"]) < 1e-4
    assert error(images, recorded[f"final.w{weight}.image"]) < 1e-4


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("row", "sampler"),
    [(SD, DDIMScheduler), (SDXL, EulerDiscreteScheduler)],
    ids=["sd-1.4", "sdxl-turbo"],
)
def test_steps_are_diffusers_own(row: Row, sampler: Any, prediction_type: str) -> None:
    family = row.load()
    family.pipeline.scheduler.register_to_config(prediction_type=prediction_type)
    theirs = sampler.from_config(family.pipeline.scheduler.config)
    theirs.set_timesteps(4)
    image = image_spec(num_inference_steps=4)
    schedule = family.schedule(image)
    latents, prediction = family.noise([1], image), family.noise([2], image) / 10
    for index, timestep in enumerate(theirs.timesteps):
        theirs.scale_model_input(latents, timestep)
        wanted = theirs.step(prediction, timestep, latents)
        x0 = family.predict_x0(latents, prediction, schedule, index)
        assert error(x0, wanted.pred_original_sample) < 1e-5
        latents = family.advance(latents, prediction, schedule, index)
        assert error(latents, wanted.prev_sample) < 1e-5


def test_one_step_is_the_same_with_the_sampler_that_sdxl_turbo_ships() -> None:
    image, shipped = image_spec(), replace(SDXL, scheduler=None).plain()
    assert type(shipped.scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    assert torch.equal(
        SDXL.draw(SDXL.plain(), "Photo of a man", image, 7),
        SDXL.draw(shipped, "Photo of a man", image, 7),
    )


def test_a_model_that_predicts_something_else_is_refused(family: GeneratorFamily) -> None:
    family.pipeline.scheduler.register_to_config(prediction_type="sample")
    try:
        with pytest.raises(PresetError, match="predicts 'sample'"):
            StableDiffusion(family.pipeline, SD.tiny, torch.device("cpu"))
    finally:
        family.pipeline.scheduler.register_to_config(prediction_type="epsilon")


def prompt(recorded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "prompt."
    return {key.removeprefix(prefix): value for key, value in recorded.items() if prefix in key}
