"""Settings of a model's sampler, as in its folder. Each gives diffusers' picture, or the model is
refused when it is loaded."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput, StartError
from services.common.presets import PresetError
from tests.generator.rows import ROWS, Row, folder
from tests.generator.specs import image_spec
from tests.generator.test_families import PROMPT, drawn

ROW = {row.preset: row for row in ROWS}
Settings = dict[str, Any]
V: Settings = {"prediction_type": "v_prediction"}
ZERO_SNR: Settings = {"rescale_betas_zero_snr": True}
TRAILING: Settings = {"timestep_spacing": "trailing"}
LINSPACE: Settings = {"timestep_spacing": "linspace"}
#: The two spacings whose steps do not end where the next begins, in five steps.
SPACINGS = (TRAILING, LINSPACE, {"timestep_spacing": "leading"})
FLOWS = ("flux-schnell", "flux-dev", "flux2-klein", "z-image-turbo")
#: Of a flow's noise levels, which the sampler makes itself.
LEVELS: tuple[Settings, ...] = (
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
)
DYNAMIC: Settings = {"use_dynamic_shifting": True}

FOLLOWED = [
    *(("sd-1.4", spacing) for spacing in SPACINGS),
    *(("sd-1.4", V | ZERO_SNR | spacing) for spacing in SPACINGS),
    *(("sdxl-turbo", spacing | more) for spacing in SPACINGS for more in ({}, ZERO_SNR)),
    ("sdxl-turbo", V | ZERO_SNR | TRAILING),
    ("sd-1.4", V),
    ("sd-1.4", ZERO_SNR | {"timestep_spacing": "leading"}),
    ("sd-1.4", {"thresholding": True}),
    ("sd-1.4", {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}),
    ("sd-1.4", {"_class_name": "DDIMScheduler", "clip_sample": True}),
    ("sd-1.4", {"_class_name": "DDPMScheduler", "clip_sample": True, "clip_sample_range": 0.5}),
    ("sd-1.4", {"set_alpha_to_one": True}),
    ("sd-1.4", {"steps_offset": 7}),
    ("sd-1.4", {"beta_schedule": "squaredcos_cap_v2"}),
    ("sd-1.4", {"trained_betas": [0.01] * 1000}),
    ("sd-1.4", {"num_train_timesteps": 500}),
    ("sd-1.4", {"_class_name": "DPMSolverMultistepScheduler"}),
    *(("sdxl-turbo", setting) for setting in LEVELS),
    ("sdxl-turbo", LEVELS[0] | {"sigma_min": 0.1, "sigma_max": 9.0}),
    ("sdxl-turbo", V),
    ("sdxl-turbo", V | {"timestep_type": "continuous"}),
    ("sdxl-turbo", {"interpolation_type": "log_linear"}),
    ("sdxl-turbo", {"final_sigmas_type": "sigma_min"}),
    ("sdxl-turbo", {"_class_name": "EulerDiscreteScheduler", "steps_offset": 7}),
    *zip(("flux-dev", "flux-schnell", "z-image-turbo"), LEVELS, strict=True),
    ("flux2-klein", DYNAMIC | LEVELS[0] | {"time_shift_type": "linear", "shift_terminal": 0.1}),
    ("flux-dev", DYNAMIC | {"time_shift_type": "linear"}),
    ("z-image-turbo", DYNAMIC | {"time_shift_type": "linear"}),
    *((flow, {"shift_terminal": 0.1}) for flow in ("flux-dev", "z-image-turbo")),
    ("flux-dev", DYNAMIC | {"base_shift": 0.3, "max_shift": 2.0}),
    ("z-image-turbo", DYNAMIC | {"base_image_seq_len": 16, "max_image_seq_len": 64}),
    ("flux-schnell", {"shift": 5.0, "use_dynamic_shifting": False}),
    ("sana-1.6b", {"flow_shift": 5.0}),
    ("sana-1.6b", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.0}),
    ("sana-1.6b", LEVELS[0]),
    ("sana-sprint", {"sigma_data": 0.7}),
]

REFUSED = [
    ("sd-1.4", ZERO_SNR | TRAILING, "rescale_betas_zero_snr True .* timestep_spacing"),
    ("sd-1.4", ZERO_SNR | LINSPACE, "rescale_betas_zero_snr True .* take it out"),
    ("sd-1.4", {"prediction_type": "sample"}, "predicts 'sample'"),
    ("sdxl-turbo", {"prediction_type": "sample"}, "predicts 'sample'"),
    ("sd-1.4", {"_class_name": "LCMScheduler"}, "LCMScheduler.* is not supported here"),
    (
        "sdxl-turbo",
        {"_class_name": "EDMEulerScheduler"},
        "EDMEulerScheduler.* is not supported here",
    ),
    ("sd-1.4", {"num_train_timesteps": 40}, "num_inference_steps: .* does not support 50"),
    ("sd-1.4", {"timestep_spacing": "odd"}, "odd"),
    *(
        ("sd-1.4", setting, f"{next(iter(setting))} True .* DDIMScheduler")
        for setting in (LEVELS[0], {"use_lu_lambdas": True})
    ),
    ("sd-1.4", {"timestep_type": "continuous"}, "timestep_type 'continuous'"),
    ("sd-1.4", {"sigma_max": 9.0}, "sigma_max 9.0"),
    ("sdxl-turbo", {"thresholding": True}, "thresholding True .* EulerDiscreteScheduler"),
    ("sdxl-turbo", {"clip_sample": True}, "clip_sample True"),
    *((flow, {"invert_sigmas": True}, "invert_sigmas True") for flow in FLOWS),
    ("flux-dev", {"stochastic_sampling": True}, "stochastic_sampling True"),
    ("flux-schnell", {"use_flow_sigmas": True}, "use_flow_sigmas True"),
    ("flux-dev", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "is not supported here"),
    # One step has one noise level, and nothing to stretch: diffusers' own picture is not a number.
    ("flux-schnell", {"shift_terminal": 0.1}, "no noise levels for 1"),
    ("sana-1.6b", {"prediction_type": "epsilon"}, "prediction_type"),
    ("sana-1.6b", {"use_flow_sigmas": False}, "use_flow_sigmas False"),
    ("sana-1.6b", {"use_lu_lambdas": True}, "use_lu_lambdas True"),
    ("sana-1.6b", DYNAMIC, "use_dynamic_shifting True"),
    (
        "sana-1.6b",
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True},
        "stochastic_sampling True",
    ),
    ("sana-sprint", {"prediction_type": "epsilon"}, "prediction_type 'epsilon'"),
]


def name(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    return ",".join(f"{key}={str(one)[:12]}" for key, one in value.items())


def changed(preset: str, settings: Settings) -> Row:
    """The row's model, with these settings in its sampler's file."""
    row = ROW[preset]

    def build(path: Path) -> None:
        shutil.copytree(folder(row), path, dirs_exist_ok=True)
        file = path / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | settings))
        if sampler := settings.get("_class_name"):
            index = path / "model_index.json"
            parts = json.loads(index.read_text()) | {"scheduler": ["diffusers", sampler]}
            index.write_text(json.dumps(parts))

    return replace(row, build=build)


@cache
def networks(preset: str) -> dict[str, torch.nn.Module]:
    """Of the plain pipeline: another sampler leaves them as they are."""
    parts = ROW[preset].plain().components
    return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """diffusers warns of what it changes itself in a sampler's settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def picture(row: Row) -> pb.ImageSpec:
    one = pb.ImageSpec()
    one.CopyFrom(row.images[0])
    one.num_inference_steps = 5
    return one


@pytest.mark.parametrize(("preset", "settings"), FOLLOWED, ids=name)
def test_a_setting_that_is_followed_gives_the_plain_pipelines_image(
    preset: str, settings: Settings
) -> None:
    row = changed(preset, settings)
    family, image = row.load(), picture(row)
    plain = row.plain(**networks(preset))
    if "Sana" in row.pipeline and settings.get("_class_name"):
        plain.scheduler.set_shift(settings["shift"])
    ours, theirs = drawn(family, image, 7), row.draw(plain, PROMPT, image, 7)
    assert theirs.isfinite().all()
    assert theirs.std() > 0.01, "a picture of one colour shows nothing"
    assert (ours - theirs).abs().max() <= 1e-4


@pytest.mark.parametrize(("preset", "settings", "sentence"), REFUSED, ids=name)
def test_a_setting_that_is_not_followed_is_refused_when_the_model_is_loaded(
    preset: str, settings: Settings, sentence: str
) -> None:
    row = changed(preset, settings)
    with pytest.raises((PresetError, StartError), match=sentence) as refused:
        row.load()
    assert preset in str(refused.value)


def test_more_steps_than_the_model_has_are_refused_by_their_field() -> None:
    family = changed("sd-1.4", {"num_train_timesteps": 60}).load()
    with pytest.raises(InvalidInput, match=r"image\.num_inference_steps: .* does not support 61"):
        family.schedule(image_spec(num_inference_steps=61))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_float16_is_refused_for_generators(row: Row) -> None:
    with pytest.raises(PresetError, match=r"float16 .* write bfloat16"):
        row.load("float16")


def test_a_model_of_zero_signal_learns_from_its_first_step_on() -> None:
    """There the latents contain nothing of x0, and the prediction of v is all of it."""
    family = changed("sd-1.4", V | ZERO_SNR | TRAILING).load()
    image = image_spec(num_inference_steps=4)
    schedule = family.schedule(image)
    assert schedule.sigmas[0].isinf()
    latents, prediction = family.noise([1], image), family.noise([2], image).requires_grad_()
    x0 = family.predict_x0(latents, prediction, schedule, 0)
    assert torch.equal(x0, -prediction)
    torch.autograd.backward(x0.sum())
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
