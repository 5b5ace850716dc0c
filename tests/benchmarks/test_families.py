"""The benchmark's models are as large as those on the hub, and the benchmark runs."""

from __future__ import annotations

import pytest
import torch

from benchmarks import families
from services.common.presets import load_presets
from services.generator.architecture import Networks
from services.generator.architecture import networks as networks_of
from services.vlm.architecture import vlm

META = torch.device("meta")
#: Parameters on the hub, in billions: of a generator's denoiser, of a whole VLM. Some go by other
#: numbers: Qwen2.5-VL-7B has 8.3, FLUX.1's 12B are 11.9.
DENOISERS = {
    "flux-schnell": 11.9,
    "flux-dev": 11.9,
    "sd-1.4": 0.860,
    "sana-1.6b": 1.60,
    "sdxl-turbo": 2.57,
    "sana-sprint": 1.61,
    "flux2-klein": 3.88,
    "z-image-turbo": 6.15,
}
VLMS = {
    "idefics2": 8.40,
    "qwen2.5-vl": 8.29,
    "gemma3": 4.30,
    "llava-1.5": 7.06,
    "pixtral": 12.7,
    "qwen3-vl": 4.44,
    "smolvlm2": 2.25,
}
TEXT_ENCODERS = {
    "flux-dev": 0.123 + 4.76,
    "sd-1.4": 0.123,
    "sana-1.6b": 2.61,
    "sdxl-turbo": 0.123 + 0.695,
    "flux2-klein": 4.02,
}
#: Tokens of an image of 512² pixels.
IMAGE_TOKENS = {
    "idefics2": ("<image>", 64),
    "qwen2.5-vl": ("<|image_pad|>", 18 * 18),
    "gemma3": ("<image_soft_token>", 256),
    "llava-1.5": ("<image>", 24 * 24),
    "pixtral": ("[IMG]", 32 * 32),
    "qwen3-vl": ("<|image_pad|>", 16 * 16),
    "smolvlm2": ("<image>", 81),
}


def networks(name: str) -> Networks:
    return networks_of(load_presets().generator(name), META)


def denoiser_of(made: Networks) -> torch.nn.Module:
    denoiser: torch.nn.Module = made["unet"] if "unet" in made else made["transformer"]
    return denoiser


def billions(*modules: torch.nn.Module) -> float:
    return sum(weight.numel() for module in modules for weight in module.parameters()) / 1e9


def test_every_preset_of_the_hub_is_there() -> None:
    assert set(families.GENERATORS) == set(DENOISERS)
    assert set(families.VLMS) == set(VLMS)


@pytest.mark.parametrize("name", DENOISERS)
def test_generators_have_their_size(name: str) -> None:
    made = networks(name)
    denoiser = denoiser_of(made)
    assert billions(denoiser) == pytest.approx(DENOISERS[name], rel=0.005)
    encoders = [made[part] for part in made if part.startswith("text_encoder")]
    if name in TEXT_ENCODERS:
        assert billions(*encoders) == pytest.approx(TEXT_ENCODERS[name], rel=0.005)
    for module in (denoiser, made["vae"], *encoders):
        assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}
        assert {weight.device for weight in module.parameters()} == {META}


@pytest.mark.parametrize("name", VLMS)
def test_vlms_have_their_size_and_see_as_many_tokens(name: str) -> None:
    family = vlm(load_presets().vlm(name), META)
    assert billions(family.model) == pytest.approx(VLMS[name], rel=0.005)
    assert {weight.dtype for weight in family.model.parameters()} == {torch.bfloat16}
    assert {weight.device for weight in family.model.parameters()} == {META}
    token, count = IMAGE_TOKENS[name]
    pixel_values = family.pixel_values(torch.rand(1, 3, 512, 512))
    assert family.image_placeholder(pixel_values).count(token) == count


@pytest.mark.parametrize("name", DENOISERS)
def test_every_lora_target_of_a_preset_is_a_layer(name: str) -> None:
    """With the architecture on the hub, since the tiny models could lack parts of it."""
    modules = dict(denoiser_of(networks(name)).named_modules())
    for target in load_presets().generator(name).lora.target_modules:
        layers = [module for path, module in modules.items() if path.endswith(f".{target}")]
        assert layers, target
        assert all(isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) for layer in layers)


def test_flux_adapts_what_the_method_says() -> None:
    targets = load_presets().generator("flux-schnell").lora.target_modules
    endings = tuple(f".{target}" for target in targets)
    modules = denoiser_of(networks("flux-schnell")).named_modules()
    layers = [module for path, module in modules if path.endswith(endings)]
    assert len(layers) == 342
    rank = 16
    parameters = sum(
        rank * (layer.in_features + layer.out_features)
        for layer in layers
        if isinstance(layer, torch.nn.Linear)
    )
    assert parameters / 1e6 == pytest.approx(44.8, abs=0.05)


def test_it_measures_a_generator_and_a_vlm(capsys: pytest.CaptureFixture[str]) -> None:
    families.main(["flux-schnell", "idefics2", "--tiny", "--steps", "1"])
    rows = capsys.readouterr().out.splitlines()
    assert sum("flux-schnell" in row for row in rows) == 1
    assert sum("idefics2" in row for row in rows) == 1


def test_a_failure_is_told_and_costs_the_others_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(families, "_measure_generator", fails)
    with pytest.raises(SystemExit, match="1"):
        families.main(["flux-schnell", "idefics2", "--tiny", "--steps", "1"])
    told = capsys.readouterr()
    assert "idefics2" in told.out
    assert "flux-schnell: OutOfMemoryError: too large" in told.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_what_to_do() -> None:
    with pytest.raises(SystemExit, match="add --tiny"):
        families.main([])
