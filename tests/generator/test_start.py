"""A LoRA that was trained elsewhere as the start of a job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from services.common.device import DeviceThread
from services.common.errors import InvalidInput
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import LORA_FILE
from services.generator.lora.kohya import to_kohya
from services.generator.lora.read import read_lora
from tests.generator.rows import ROWS, Row
from tests.generator.specs import lora_spec as flux_lora_spec
from tests.generator.specs import optimize_spec
from tests.generator.test_families import PROMPT, drawn, loaded, lora_spec
from tests.generator.test_optimize import run

KNOWN_TO_KOHYA = [row for row in ROWS if row.preset in ("flux-schnell", "sd-1.4", "sdxl-turbo")]
Tensors = dict[str, torch.Tensor]


def trained(family: GeneratorFamily, row: Row | None = None, rank: int = 4) -> Tensors:
    """A LoRA that changes the image, in the diffusers layout."""
    spec = lora_spec(row, rank) if row else flux_lora_spec(rank=rank)
    adapter = LoraAdapter(family, "elsewhere", spec, seed=7)
    generator = torch.Generator().manual_seed(7)
    tensors = {
        key: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in adapter.tensors().items()
    }
    adapter.remove()
    return tensors


def plain_file(tensors: Tensors, _: GeneratorFamily) -> bytes:
    return save(tensors)


def configured_file(tensors: Tensors, family: GeneratorFamily) -> bytes:
    """As diffusers saves a LoRA whose alpha is not its rank, and of one layer differs."""
    prefix = family.lora_prefix
    modules = sorted({key.removeprefix(f"{prefix}.").partition(".lora_")[0] for key in tensors})
    keyed = {
        f"{prefix}.r": 4,
        f"{prefix}.lora_alpha": 3,
        f"{prefix}.alpha_pattern": {modules[0]: 1},
        f"{prefix}.target_modules": modules,
    }
    return save(tensors, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(keyed)})


def kohya_file(tensors: Tensors, family: GeneratorFamily) -> bytes:
    """As kohya's scripts save a LoRA whose alpha is half its rank, in float16."""
    assert family.kohya_prefix is not None
    converted = to_kohya(tensors, family.lora_prefix, family.kohya_prefix)
    assert converted is not None
    return save(
        {key: (t / 2 if key.endswith("alpha") else t.half()) for key, t in converted.items()}
    )


@pytest.mark.parametrize("row", KNOWN_TO_KOHYA, ids=str)
@pytest.mark.parametrize("write", [plain_file, configured_file, kohya_file])
def test_the_job_begins_with_what_diffusers_draws(
    row: Row, write: Callable[[Tensors, GeneratorFamily], bytes], tmp_path: Path
) -> None:
    family, image = loaded(row), row.images[0]
    file = tmp_path / "lora.safetensors"
    file.write_bytes(write(trained(family, row), family))
    base = drawn(family, image, 3)
    adapter = LoraAdapter(
        family,
        "begun",
        lora_spec(row, rank=8),
        seed=0,
        start=read_lora(file.read_bytes(), family).loras,
    )
    with adapter.active():
        ours = drawn(family, image, 3)
    adapter.remove()
    pipeline = row.plain()
    if write is kohya_file and family.lora_prefix == "transformer":
        # diffusers' own reader of OneTrainer's names leaves out most.
        loras = read_lora(file.read_bytes(), family).loras
        pipeline.load_lora_weights(
            {
                f"transformer.{module}.lora_{half}.weight": getattr(lora, half)
                for module, lora in loras.items()
                for half in "AB"
            }
        )
    else:
        pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    theirs = row.draw(pipeline, PROMPT, image, 3)
    assert (ours - theirs).abs().max() <= 1e-4
    assert (ours - base).abs().max() > 0.01


async def test_a_short_step_leaves_the_start_as_it_was(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    tensors, spec = trained(schnell), optimize_spec(steps=1)
    spec.optimizer.lr = 1e-12
    told = await run(schnell, device, spec, start=save(tensors))
    exported = load(told.files[LORA_FILE])
    assert exported.keys() == tensors.keys()
    for key, tensor in tensors.items():
        torch.testing.assert_close(exported[key], tensor, rtol=1e-6, atol=1e-9)


def test_what_the_start_lacks_begins_as_without_it(schnell: GeneratorFamily) -> None:
    tensors = {key: t for key, t in trained(schnell).items() if "attn.to_q." in key}
    usual = LoraAdapter(schnell, "usual", flux_lora_spec(rank=6), seed=0)
    begun = LoraAdapter(
        schnell,
        "begun",
        flux_lora_spec(rank=6),
        seed=0,
        start=read_lora(save(tensors), schnell).loras,
    )
    without, got = usual.tensors(), begun.tensors()
    for adapter in (usual, begun):
        adapter.remove()
    assert got.keys() == without.keys()
    for key, tensor in got.items():
        if key not in tensors:
            assert torch.equal(tensor, without[key])
        elif "lora_A" in key:
            assert torch.equal(tensor[:4], tensors[key])
            assert torch.equal(tensor[4:], without[key][4:])
        else:
            torch.testing.assert_close(tensor[:, :4], tensors[key], rtol=1e-6, atol=0)
            assert not tensor[:, 4:].any()


def _renamed(old: str, new: str) -> Callable[[Tensors], bytes]:
    return lambda tensors: save({key.replace(old, new): t for key, t in tensors.items()})


def _changed(change: Callable[[str, torch.Tensor], torch.Tensor]) -> Callable[[Tensors], bytes]:
    return lambda tensors: save({key: change(key, t).contiguous() for key, t in tensors.items()})


def _with(key: str, **metadata: str) -> Callable[[Tensors], bytes]:
    return lambda tensors: save(tensors | {key: torch.ones(1)}, metadata=metadata or None)


def _without_b(tensors: Mapping[str, torch.Tensor]) -> bytes:
    return save({key: t for key, t in tensors.items() if "lora_B" not in key})


def _wide(matrix: torch.Tensor, *kernel: int) -> torch.Tensor:
    return matrix[:, :, None, None].expand(-1, -1, *kernel)


def _with_alpha(numbers: int) -> Callable[[Tensors], bytes]:
    def spoil(tensors: Tensors) -> bytes:
        module = next(iter(tensors)).removesuffix(".lora_A.weight").removesuffix(".lora_B.weight")
        return save({**tensors, f"{module}.alpha": torch.ones(numbers)})

    return spoil


WRONG: list[tuple[Callable[[Tensors], bytes], str]] = [
    (lambda _: b"PK\x03\x04 a pickle", "not a safetensors file"),
    (lambda _: save({}), "holds no LoRA"),
    (_renamed("transformer_blocks.", "blocks."), "none of its 30 layers .* is one of a flux"),
    (_renamed("lora_A", "lokr_w1"), "it is a LoKr"),
    (_renamed("lora_A.weight", "weight"), "is not part of a LoRA"),
    (_without_b, "it has only one half for .*; a LoRA has lora_A.weight and lora_B.weight"),
    (_with("transformer.x.alpha"), "transformer.x.alpha' belongs to no LoRA"),
    (lambda _: save({"lora_te_q.lora_down.weight": torch.ones(1)}), "only LoRAs of text encoders"),
    (
        lambda _: save({f"norm_out.linear.lora_{half}.weight": torch.ones(1, 1) for half in "AB"}),
        r"adapts 1 layers, like norm_out.linear, .*target_modules: \[.*norm_out.linear\]",
    ),
    (_changed(lambda _, t: t * float("nan")), "not finite"),
    (_changed(lambda key, t: t[:, 1:] if "lora_A" in key else t), "don't fit that layer"),
    (_changed(lambda key, t: t[:, 1:] if "lora_B" in key else t), "don't fit together"),
    (_changed(lambda key, t: t[:0, :, None, None] if "lora_B" in key else t), "don't fit that"),
    (_changed(lambda key, t: _wide(t, 3, 3) if "lora_B" in key else t), "don't fit that layer"),
    (_changed(lambda key, t: _wide(t, 3, 1) if "lora_B" in key else t), "don't fit that layer"),
    (_with_alpha(2), "alpha must be one number"),
]


@pytest.mark.parametrize(("spoil", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
async def test_a_wrong_start_is_refused_by_name(
    schnell: GeneratorFamily,
    device: DeviceThread,
    spoil: Callable[[Tensors], bytes],
    sentence: str,
) -> None:
    file = spoil(trained(schnell))
    with pytest.raises(InvalidInput, match=f"^lora.start: .*{sentence}"):
        await run(schnell, device, optimize_spec(), start=file)
    await assert_clean(schnell, device)


async def test_a_rank_too_large_names_the_one_to_write(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    file = save(trained(schnell, rank=32))
    with pytest.raises(InvalidInput, match=r"its rank is 32; write lora.rank: 32 or more"):
        await run(schnell, device, optimize_spec(), start=file)
    await assert_clean(schnell, device)


async def assert_clean(family: GeneratorFamily, device: DeviceThread) -> None:
    await device.run(lambda: None)
    assert not family.adapters.adapters
