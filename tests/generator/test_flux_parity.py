"""Against tensors recorded with other releases of diffusers and peft, float32 on a CPU."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from tests.generator.conftest import PARITY
from tests.generator.specs import image_spec, lora_spec

IMAGE = image_spec()


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(PARITY / "generator-flux-schnell.safetensors")
    return tensors


@pytest.fixture(scope="module")
def facts() -> Any:
    return json.loads((PARITY / "generator-flux-schnell.json").read_text())


@pytest.fixture
def adapter(schnell: GeneratorFamily, recorded: dict[str, torch.Tensor]) -> Any:
    adapter = LoraAdapter(schnell, "recorded", lora_spec(rank=16), seed=0)
    for name, parameter in adapter.named_parameters.items():
        parameter.data.copy_(recorded[f"lora.{name}"])
    yield adapter
    adapter.remove()


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.detach() - wanted).abs().max() / wanted.abs().max())


def test_prompt(schnell: GeneratorFamily, recorded: dict[str, torch.Tensor], facts: Any) -> None:
    conditioning = schnell.encode(facts["prompt"], image_spec())
    # The recording padded T5 to 512; schnell's limit is 256.
    assert conditioning["encoder_hidden_states"].shape == (1, 256, 32)
    assert error(conditioning["pooled_projections"], recorded["prompt.pooled_projections"]) < 1e-4


def test_schedule(schnell: GeneratorFamily, facts: Any) -> None:
    schedule = schnell.schedule(IMAGE)
    assert schedule.sigmas.tolist() == facts["sigmas"]
    assert schedule.timesteps.tolist() == facts["timesteps"]


def test_prediction_image_and_lora_gradient(
    schnell: GeneratorFamily, adapter: LoraAdapter, recorded: dict[str, torch.Tensor]
) -> None:
    conditioning = prompt(recorded)
    schedule = schnell.schedule(IMAGE)
    noise = recorded["noise"]
    with adapter.active():
        model_pred = schnell.denoise(noise, conditioning, schedule, 0)
        x0 = schnell.predict_x0(noise, model_pred, schedule, 0)
        images = schnell.decode(x0, IMAGE)
        torch.autograd.backward(images, load_file(PARITY / "image_grad.safetensors")["image_grad"])
    assert error(model_pred, recorded["step0.model_pred"]) < 1e-4
    assert error(x0, recorded["step0.x0"]) < 1e-4
    assert error(images, recorded["step0.image"]) < 1e-4
    assert len(adapter.named_parameters) == 60
    for name, parameter in adapter.named_parameters.items():
        assert parameter.grad is not None
        wanted = recorded[f"step0.grad.{name}"]
        assert float((parameter.grad - wanted).norm() / wanted.norm()) < 1e-3, name


@pytest.mark.usefixtures("adapter")
def test_an_idle_lora_changes_nothing(
    schnell: GeneratorFamily, recorded: dict[str, torch.Tensor]
) -> None:
    schedule = schnell.schedule(IMAGE)
    latents = schnell.sample(recorded["noise"], prompt(recorded), schedule, until=1)
    with torch.no_grad():
        images = schnell.decode(latents, IMAGE)
    assert error(latents, recorded["final.w0.latents"]) < 1e-4
    assert error(images, recorded["final.w0.image"]) < 1e-4


def prompt(recorded: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    prefix = "prompt."
    return {key.removeprefix(prefix): value for key, value in recorded.items() if prefix in key}
