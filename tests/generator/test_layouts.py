"""LoRA files from elsewhere: each layout with each family has the effect that diffusers gives."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load, save

from services.common.device import DeviceThread
from services.common.errors import InvalidInput
from services.common.lora_layouts import table
from services.generator.adapters.low_rank import LowRank
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import LORA_FILE
from services.generator.lora.loaded import LoadedLoras
from services.generator.lora.read import read_lora
from tests.generator.lora_files import RANK, SPELLINGS, Tensors, own, written
from tests.generator.rows import ROWS, Row
from tests.generator.specs import optimize_spec
from tests.generator.test_families import loaded
from tests.generator.test_optimize import run

BY_FAMILY = {row.tiny.family: row for row in ROWS if row.preset != "flux-dev"}


@cache
def plain(row: Row) -> Any:
    return row.plain()


def deltas(denoiser: Any) -> Tensors:
    """What is added to the weight of each module that has an adapter."""
    found = {}
    for name, module in denoiser.named_modules():
        if isinstance(module, LoraLayer) and module.lora_A:
            (adapter,) = module.lora_A
            found[name] = module.get_delta_weight(adapter)
    return found


def ours(family: GeneratorFamily, tensors: Tensors) -> Tensors:
    loras = LoadedLoras(family, "elsewhere", [save(tensors)], [1.0])
    try:
        (adapter,) = family.adapters.adapters.values()
        return {module: delta(lora) for module, lora in adapter.items()}
    finally:
        loras.close()


def delta(lora: LowRank) -> torch.Tensor:
    """What it adds to the weight of its module: W [out, in, …]."""
    return torch.einsum("or...,ri...->oi...", lora.B.flatten(1), lora.A) * lora.scale


@cache
def theirs(row: Row, layout: str) -> Tensors:
    """As diffusers loads it."""
    pipeline = plain(row)
    pipeline.load_lora_weights(dict(written(loaded(row), SPELLINGS[layout])))
    try:
        return deltas(pipeline.components[loaded(row).lora_prefix])
    finally:
        pipeline.unload_lora_weights()


#: Where diffusers loads nothing or a part of a file: the layout in which it loads the same LoRAs.
SAME_AS = {
    ("ai-toolkit, ComfyUI", "sdxl"): "kohya's names for SDXL",
    ("ai-toolkit, ComfyUI", "z_image"): "kohya's sd-scripts",
    ("kohya's sd-scripts", "flux2"): "ai-toolkit, ComfyUI",
}
#: Not by diffusers on a tiny model: see the tests below.
ELSEWHERE = {
    ("kohya's sd-scripts", "flux"),
    ("ai-toolkit, ComfyUI", "flux"),
    ("kohya's names for SDXL", "stable_diffusion"),
    ("ai-toolkit, ComfyUI", "stable_diffusion"),
}


def loadable(layout: str, family: str) -> str:
    """The layout of the same LoRAs that diffusers loads."""
    unets = family in table.UNETS and layout == "kohya's sd-scripts"
    if SPELLINGS[layout].naming is own or unets:
        return "diffusers"
    return SAME_AS.get((layout, family), layout)


@pytest.mark.parametrize(
    ("layout", "family"),
    [
        pytest.param(row.layout, family, id=f"{row.layout}-{family}")
        for row in table.ROWS
        if row.layout in SPELLINGS
        for family in row.families
        if (row.layout, family) not in ELSEWHERE
    ],
)
def test_a_file_has_the_effect_that_diffusers_gives(layout: str, family: str) -> None:
    row, other = BY_FAMILY[family], loadable(layout, family)
    got = ours(loaded(row), written(loaded(row), SPELLINGS[layout]))
    wanted = theirs(row, other)
    scale = (SPELLINGS[layout].alpha or RANK) / (SPELLINGS[other].alpha or RANK)
    assert got.keys() == wanted.keys()
    for module, delta in wanted.items():
        torch.testing.assert_close(got[module], delta * scale, msg=module)


def test_flux_in_kohyas_names_is_as_diffusers_reads_it() -> None:
    """At full size: diffusers' converter knows no other."""
    with torch.device("meta"):
        model = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    family = cast(
        GeneratorFamily, SimpleNamespace(denoiser=model, name="flux", lora_prefix="transformer")
    )
    tensors = written(family, SPELLINGS["kohya's sd-scripts"])
    # One trained on query, key and value apart, as sd-scripts can.
    name = "lora_unet_double_blocks_0_txt_attn_qkv"
    up = tensors[f"{name}.lora_up.weight"]
    tensors[f"{name}.lora_down.weight"] = torch.randn(3 * RANK, 3072)
    tensors[f"{name}.lora_up.weight"] = torch.block_diag(*up.chunk(3))  # type: ignore[no-untyped-call]
    converted = FluxPipeline.lora_state_dict(dict(tensors))
    wanted = {
        # Of some modules its converter leaves out the prefix.
        key.removeprefix("transformer.").removesuffix(".lora_A.weight"): (
            lora_A,
            converted[key.replace("lora_A", "lora_B")],
        )
        for key, lora_A in converted.items()
        if "lora_A" in key
    }
    loras = read_lora(save(tensors), family).loras
    assert loras.keys() == wanted.keys()
    # Its converter takes no alpha into account here, ComfyUI does.
    last = ("norm_out.linear", "proj_out")
    for module, (A, B) in loras.items():
        their_A, their_B = wanted[module]
        # What is added to the layer's output, for a few inputs: the products are large.
        inputs = torch.randn(A.shape[1], 3)
        scale = RANK if module in last else 1
        got, theirs_too = B @ (A @ inputs) * scale, their_B @ (their_A @ inputs)
        torch.testing.assert_close(got, theirs_too, atol=1e-2, rtol=1e-3, msg=module)


def test_flux_has_one_effect_in_kohyas_and_comfyuis_spelling() -> None:
    family = loaded(BY_FAMILY["flux"])
    kohya, comfyui = SPELLINGS["kohya's sd-scripts"], SPELLINGS["ai-toolkit, ComfyUI"]
    of_kohya = ours(family, written(family, replace(kohya, alpha=RANK)))
    of_comfyui = ours(family, written(family, comfyui))
    assert of_kohya.keys() == of_comfyui.keys()
    for module, delta in of_kohya.items():
        torch.testing.assert_close(delta, of_comfyui[module])


TEXT_ENCODERS = [
    "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.alpha",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.dora_scale",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
    "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_linear_layer.up.weight",
    "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc2.lora_up.weight",
    "base_model.model.text_model.encoder.layers.0.mlp.fc2.lora_B.weight",
]


@pytest.mark.parametrize("family", table.EVERY)
def test_text_encoders_are_left_out_with_a_note(family: str) -> None:
    generator = loaded(BY_FAMILY[family])
    tensors = written(generator, SPELLINGS["diffusers"])
    read = read_lora(save(tensors | {key: torch.ones(1) for key in TEXT_ENCODERS}), generator)
    assert read.loras.keys() == read_lora(save(tensors), generator).loras.keys()
    (note,) = read.notes
    assert f"7 of its {7 + len(tensors) // 2} LoRAs are for text encoders" in note


@pytest.mark.parametrize("family", table.EVERY)
def test_layers_that_the_model_lacks_are_left_out_with_a_note(family: str) -> None:
    generator = loaded(BY_FAMILY[family])
    tensors = written(generator, SPELLINGS["diffusers"])
    lacks = {f"transformer.blocks_to_come.0.lora_{half}.weight": torch.ones(1, 1) for half in "AB"}
    read = read_lora(save(tensors | lacks), generator)
    assert read.loras.keys() == read_lora(save(tensors), generator).loras.keys()
    (note,) = read.notes
    assert f"1 of its {1 + len(tensors) // 2} layers" in note
    assert "blocks_to_come.0" in note


async def test_a_job_tells_what_its_start_left_out(
    schnell: GeneratorFamily, device: DeviceThread
) -> None:
    tensors = {
        key: tensor
        for key, tensor in written(schnell, SPELLINGS["kohya's sd-scripts"], rank=4).items()
        if "_mlp_" in key
    }
    te = {TEXT_ENCODERS[0]: torch.ones(4, 4)}
    spec = optimize_spec(steps=1)
    told = await run(schnell, device, spec, start=save(tensors | te))
    (warning,) = told.responses[1].warnings.sentences
    assert warning.startswith("lora.start: 1 of its ")
    assert LORA_FILE in told.files
    loras = LoadedLoras(schnell, "images", [save(tensors | te)], [1.0])
    (note,) = loras.notes
    assert note == warning.replace("lora.start: ", "loras.0: ")
    loras.close()


A = "transformer.transformer_blocks.0.attn.to_q"
OTHER_KINDS = {
    "a DoRA": (
        f"{A}.lora_magnitude_vector",
        f"{A}.dora_scale",
        f"{A}.lora_magnitude_vector.weight",
    ),
    "a LoHa": ("lora_unet_double_blocks_0_img_mlp_0.hada_w1_a", f"{A}.hada_w2_b"),
    "a LoKr": ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1", f"{A}.lokr_w2_a"),
    "biases": (f"{A}.lora_B.bias", f"{A}.lora_up.bias", f"{A}.diff_b"),
    "a Tucker core": (f"{A}.lora_mid.weight",),
    "whole weights": (f"{A}.diff", f"{A}.w_norm"),
}


@pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, keys in OTHER_KINDS.items() for key in keys]
)
def test_other_kinds_are_refused_with_the_remedy(
    schnell: GeneratorFamily, kind: str, key: str
) -> None:
    file = save(written(schnell, SPELLINGS["diffusers"]) | {key: torch.ones(2, 2)})
    with pytest.raises(InvalidInput, match=rf"{kind}.*; train .*, or extract a plain LoRA"):
        read_lora(file, schnell)


@pytest.mark.parametrize("family", table.EVERY)
def test_a_file_of_another_family_is_refused_by_its_name(family: str) -> None:
    generator = loaded(BY_FAMILY[family])
    other = "flux" if family in table.UNETS else "sdxl"
    file = save(written(loaded(BY_FAMILY[other]), SPELLINGS["kohya's sd-scripts"]))
    with pytest.raises(InvalidInput, match=rf"those of .*{other}.*name a generator of that family"):
        read_lora(file, generator)


def test_what_target_modules_lacks_is_named_at_once_and_can_be_pasted(
    schnell: GeneratorFamily,
) -> None:
    file = save(written(schnell, SPELLINGS["XLabs"], rank=1))
    spec = optimize_spec().lora
    spec.rank = 1
    start = read_lora(file, schnell).loras
    with pytest.raises(InvalidInput, match="adapts 2 layers") as refusal:
        LoraAdapter(schnell, "refused", spec, 0, start)
    pasted = str(refusal.value).rpartition("[")[2].removesuffix("]").split(", ")
    assert pasted == [*spec.target_modules, "proj_out"]
    spec.target_modules[:] = pasted
    LoraAdapter(schnell, "taken", spec, 0, start).remove()


def test_every_row_of_the_table_is_tried() -> None:
    tried = {
        *SPELLINGS,
        "with text encoders",
        "with layers that the model lacks",
        "DoRA",
        "LoHa",
        "LoKr",
        "biases",
    }
    assert {row.layout for row in table.ROWS} == tried


def test_a_fused_layer_that_repeats_its_parts_is_left_out(schnell: GeneratorFamily) -> None:
    missing = [f"transformer_blocks.1.attn.to_{name}" for name in "qkv"]
    parts = {
        key: tensor
        for key, tensor in written(schnell, SPELLINGS["diffusers"]).items()
        if not any(f".{module}." in key for module in missing)
    }
    whole = written(schnell, SPELLINGS["XLabs"])
    repeating = {key: tensor for key, tensor in whole.items() if "qkv" in key}
    read = read_lora(save(parts | repeating), schnell)
    alone = read_lora(save(parts), schnell)
    assert read.loras.keys() - alone.loras.keys() == set(missing), "what repeats nothing is taken"
    assert all(torch.equal(read.loras[module].B, lora.B) for module, lora in alone.loras.items())
    assert any("repeat others" in note for note in read.notes)


@pytest.mark.parametrize("family", ["flux", "stable_diffusion"])
def test_a_linear_layer_and_a_convolution_of_one_pixel_are_one(family: str) -> None:
    """Files have either for either."""

    def turned(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 2:
            return tensor[:, :, None, None]
        return tensor[:, :, 0, 0].contiguous() if tensor.shape[2:].numel() == 1 else tensor

    generator = loaded(BY_FAMILY[family])
    tensors = written(generator, SPELLINGS["diffusers"])
    got = ours(generator, {key: turned(tensor) for key, tensor in tensors.items()})
    wanted = ours(generator, tensors)
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[module], delta) for module, delta in wanted.items())


QKV = [f"transformer_blocks.0.attn.to_{name}" for name in "qkv"]


def fused(A: torch.Tensor, B: torch.Tensor) -> bytes:
    key = "double_blocks.0.processor.qkv_lora1"
    return save({f"{key}.down.weight": A, f"{key}.up.weight": B.contiguous()})


def test_rows_that_a_fused_layers_modules_have_to_themselves_go_to_each(
    schnell: GeneratorFamily,
) -> None:
    A, parts = torch.randn(6, 64), torch.randn(3, 64, 2)
    of_q, of_k, _ = A.clone().chunk(3)
    loras = read_lora(fused(A, torch.block_diag(*parts)), schnell).loras  # type: ignore[no-untyped-call]
    assert list(loras) == QKV
    assert torch.equal(loras[QKV[1]].A, of_k)
    assert torch.equal(loras[QKV[1]].B, parts[1])
    # What is nothing but zeros is no LoRA; one half is something to begin with.
    A[2:4], parts[1:] = 0, 0
    loras = read_lora(fused(A, torch.block_diag(*parts)), schnell).loras  # type: ignore[no-untyped-call]
    assert list(loras) == [QKV[0], QKV[2]]
    assert torch.equal(loras[QKV[0]].A, of_q)
    assert torch.equal(loras[QKV[2]].A, A[4:])
    assert not loras[QKV[2]].B.any()


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_rows_that_a_fused_layers_modules_share_go_to_all(
    schnell: GeneratorFamily, rank: int
) -> None:
    A, B = torch.randn(rank, 64), torch.randn(192, rank)
    loras = read_lora(fused(A, B), schnell).loras
    assert list(loras) == QKV
    for module, part in zip(QKV, B.chunk(3), strict=True):
        assert torch.equal(loras[module].A, A)
        assert torch.equal(loras[module].B, part)


def test_a_fused_layer_of_another_size_is_refused(schnell: GeneratorFamily) -> None:
    with pytest.raises(InvalidInput, match=r"qkv.*: 191 rows of output don't fit"):
        read_lora(fused(torch.randn(2, 64), torch.randn(191, 2)), schnell)


def test_a_fused_layer_beside_one_of_its_modules_is_refused(schnell: GeneratorFamily) -> None:
    """What repeats all of them is left out; here nobody can say which of the two is meant."""
    whole = load(fused(torch.randn(2, 64), torch.randn(192, 2)))
    alone = {f"transformer.{QKV[1]}.lora_{half}.weight": torch.ones(64, 64) for half in "AB"}
    with pytest.raises(InvalidInput, match=f"two LoRAs for {QKV[1]}; send a file with one"):
        read_lora(save(whole | alone), schnell)
