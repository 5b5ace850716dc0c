from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import diffusers_file
from services.generator.sample import render
from tests.generator.specs import image_spec, lora_spec

IMAGE = image_spec()


def disturbed(family: GeneratorFamily, name: str, seed: int = 0) -> LoraAdapter:
    """A LoRA that changes the image: lora_B is not zero."""
    adapter = LoraAdapter(family, name, lora_spec(), seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters:
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return adapter


def test_file_is_what_other_tools_read(schnell: GeneratorFamily, tmp_path: Path) -> None:
    adapter = disturbed(schnell, "exported")
    file = tmp_path / "lora.safetensors"
    file.write_bytes(diffusers_file(adapter.tensors(), schnell, rank=4, title="a circle"))
    adapted = sorted(
        name.removesuffix(".lora_A.weight")
        for name in adapter.named_parameters
        if name.endswith(".lora_A.weight")
    )
    adapter.remove()
    with safe_open(file, "pt") as opened:
        keys, metadata = list(opened.keys()), opened.metadata()
    assert len(keys) == 60
    for key in keys:
        assert key.startswith("transformer.")
        assert key.endswith((".lora_A.weight", ".lora_B.weight"))
        assert "default" not in key
        assert "base_layer" not in key
    config = json.loads(metadata["lora_adapter_metadata"])
    assert config["transformer.r"] == config["transformer.lora_alpha"] == 4
    assert config["transformer.target_modules"] == adapted
    assert metadata["modelspec.title"] == "a circle"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "4"


def test_export_is_the_same_bytes_each_time(schnell: GeneratorFamily) -> None:
    adapter = disturbed(schnell, "exported")
    files = {diffusers_file(adapter.tensors(), schnell, rank=4, title="a circle") for _ in range(5)}
    assert len(files) == 1
    adapter.remove()


def test_seed_decides_the_initial_weights(schnell: GeneratorFamily) -> None:
    def initial(name: str, seed: int) -> torch.Tensor:
        torch.randn(3)  # whatever else draws from the global generator
        adapter = LoraAdapter(schnell, name, lora_spec(), seed)
        weights = torch.cat([parameter.detach().flatten() for parameter in adapter.parameters])
        adapter.remove()
        return weights

    assert torch.equal(initial("a", 1), initial("b", 1))
    assert not torch.equal(initial("a", 1), initial("b", 2))


def test_a_removed_lora_leaves_the_base_as_it_was(load: Callable[[str], GeneratorFamily]) -> None:
    family = load("flux-schnell")
    conditioning = family.encode("a circle", image_spec())
    before = render(family, conditioning, IMAGE, 1)
    adapter = disturbed(family, "passing")
    with adapter.active():
        with_lora = render(family, conditioning, IMAGE, 1)
    adapter.remove()
    assert (with_lora != before).any()
    assert (render(family, conditioning, IMAGE, 1) == before).all()
    assert not family.adapters.adapters


@pytest.mark.parametrize("target", ["attn.to_qq", "attn", "to_k.weight"])
def test_layers_that_cannot_be_adapted_are_named(schnell: GeneratorFamily, target: str) -> None:
    spec = lora_spec()
    spec.target_modules[:] = ["attn.to_q", target]
    with pytest.raises(InvalidInput, match=r"lora\.target_modules: .*"):
        LoraAdapter(schnell, "refused", spec, seed=0)
    assert not schnell.adapters.adapters
