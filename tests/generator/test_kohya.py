from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
from safetensors.torch import load, save

from services.common.errors import InvalidInput
from services.common.lora_layouts.kohya_names import Layers, flux_layers, unet_layers
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.export import kohya_file
from services.generator.lora.kohya import from_kohya, to_kohya
from services.generator.lora.read import read_lora
from services.generator.lora.safetensors_header import metadata
from tests.generator.rows import ROWS, Row
from tests.generator.test_families import PROMPT, lora_spec

FLUX_SCHNELL = next(row for row in ROWS if row.preset == "flux-schnell")
UNETS = [row for row in ROWS if row.preset in ("sd-1.4", "sdxl-turbo")]
ALL = [*UNETS, *(row for row in ROWS if row.preset in ("flux-schnell", "flux-dev"))]
each_row = pytest.mark.parametrize("row", ALL, ids=str)
each_unet = pytest.mark.parametrize("row", UNETS, ids=str)

_BLOCK = r"transformer_blocks_\d+_(attn[12]_to_(q|k|v|out_0)|ff_net_(0_proj|2))"
#: Layer names that ComfyUI's key maps have, by the LoRA prefix of the family: for U-Nets
#: `lora_unet_` and each diffusers name of `unet_to_diffusers`; for FLUX.1 `lora_unet_` and each of
#: the original model's own names.
ACCEPTED = {
    "unet": re.compile(
        r"lora_unet_("
        rf"(down_blocks_\d+|up_blocks_\d+|mid_block)_attentions_\d+_({_BLOCK}|proj_in|proj_out)"
        r"|(down_blocks_\d+|up_blocks_\d+|mid_block)_resnets_\d+_"
        r"(conv1|conv2|time_emb_proj|conv_shortcut)"
        r"|down_blocks_\d+_downsamplers_0_conv|up_blocks_\d+_upsamplers_0_conv"
        r"|conv_in|conv_out|(time|add)_embedding_linear_[12])"
    ),
    "transformer": re.compile(
        r"lora_unet_("
        r"double_blocks_\d+_(img|txt)_(attn_qkv|attn_proj|mlp_0|mlp_2|mod_lin)"
        r"|single_blocks_\d+_(linear1|linear2|modulation_lin)"
        r"|img_in|txt_in|(time|vector|guidance)_in_(in|out)_layer|final_layer_linear)"
    ),
}


@cache
def loaded(row: Row) -> GeneratorFamily:
    return row.load()


def layers(row: Row) -> Layers:
    family = loaded(row)
    modules = [name for name, _ in family.denoiser.named_modules()]
    return unet_layers(modules) if family.lora_prefix == "unet" else flux_layers(modules)


@pytest.fixture
def exported(row: Row) -> Iterator[Callable[..., dict[str, torch.Tensor]]]:
    """A LoRA of the row's family as the service hands it out, on the targets asked for."""
    adapters: list[LoraAdapter] = []

    def export(*targets: str, trained: bool = True) -> dict[str, torch.Tensor]:
        spec = lora_spec(row)
        if targets:
            spec.target_modules[:] = targets
        adapter = LoraAdapter(loaded(row), f"kohya-{len(adapters)}", spec, seed=0)
        adapters.append(adapter)
        generator = torch.Generator().manual_seed(0)
        for parameter in adapter.parameters if trained else ():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
        return adapter.tensors()

    yield export
    for adapter in adapters:
        adapter.remove()


Export = Callable[..., dict[str, torch.Tensor]]
UNUSUAL = {
    "unet": ("proj_in", "ff.net.0.proj", "conv1", "conv_shortcut", "time_emb_proj", "conv_in"),
    "transformer": ("to_k", "proj_mlp", "proj_out", "norm1.linear", "x_embedder"),
}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_families_that_kohya_knows_have_its_file(row: Row, exported: Export) -> None:
    family, tensors = loaded(row), exported()
    files = [kohya_file(tensors, family, rank=4, title=PROMPT) for _ in range(5)]
    if row not in ALL:
        assert files == [None] * 5
        return
    assert files[0] is not None
    assert len(set(files)) == 1
    assert metadata(files[0])["ss_network_dim"] == "4"
    loras = read_lora(files[0], family)
    got = {
        f"{family.lora_prefix}.{module}.lora_{half}.weight": getattr(lora, half)
        for module, lora in loras.items()
        for half in "AB"
    }
    assert_same(got, tensors)


def test_without_a_name_in_kohyas_format_there_is_no_file(schnell: GeneratorFamily) -> None:
    spec = lora_spec(FLUX_SCHNELL)
    spec.target_modules.append("norm_out.linear")
    adapter = LoraAdapter(schnell, "nameless", spec, seed=0)
    assert kohya_file(adapter.tensors(), schnell, rank=4, title=PROMPT) is None
    adapter.remove()


def assert_same(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor), key


@each_row
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("unusual", [True, False])
def test_there_and_back_is_exact(row: Row, exported: Export, trained: bool, unusual: bool) -> None:
    prefix = loaded(row).lora_prefix
    tensors = exported(*(UNUSUAL[prefix] if unusual else ()), trained=trained)
    kohya = load(save(to_kohya(tensors, layers(row), prefix)))
    assert_same(from_kohya(kohya, layers(row), prefix), tensors)


@each_row
@pytest.mark.parametrize("unusual", [True, False])
def test_comfyui_knows_every_key(row: Row, exported: Export, unusual: bool) -> None:
    prefix = loaded(row).lora_prefix
    tensors = exported(*(UNUSUAL[prefix] if unusual else ()))
    kohya = to_kohya(tensors, layers(row), prefix)
    for key, tensor in kohya.items():
        layer, _, part = key.partition(".")
        assert ACCEPTED[prefix].fullmatch(layer), key
        assert part in ("lora_down.weight", "lora_up.weight", "alpha")
        if part == "alpha":
            assert tensor.shape == ()
            assert float(tensor) == len(kohya[f"{layer}.lora_down.weight"])


@each_row
def test_fused_layers_do_what_their_modules_do(row: Row, exported: Export) -> None:
    """up · down is the modules' B · A, stacked."""
    prefix, tensors = loaded(row).lora_prefix, exported()
    kohya = to_kohya(tensors, layers(row), prefix)
    for name in {key.partition(".")[0] for key in kohya}:
        layer = layers(row)[name]
        got = kohya[f"{name}.lora_up.weight"] @ kohya[f"{name}.lora_down.weight"]
        rows = len(got) // sum(layer.shares)
        parts = torch.split(got, [rows * share for share in layer.shares])
        for module, part in zip(layer.modules, parts, strict=True):
            lora_A = tensors.get(f"{prefix}.{module}.lora_A.weight")
            wanted = torch.zeros_like(part)
            if lora_A is not None:
                wanted = tensors[f"{prefix}.{module}.lora_B.weight"] @ lora_A
            torch.testing.assert_close(part, wanted)


@each_unet
def test_diffusers_reads_the_same_image_from_both_layouts(row: Row, exported: Export) -> None:
    image, tensors, images = row.images[0], exported(), []
    kohya = to_kohya(tensors, layers(row), "unet")
    for layout in ({}, tensors, kohya):
        pipeline = row.plain()
        if layout:
            pipeline.load_lora_weights(dict(layout))
        images.append(row.draw(pipeline, PROMPT, image, 5))
    base, ours, theirs = images
    assert (ours - theirs).abs().max() <= 0.5e-4
    assert (ours - base).abs().max() > 0.01


@each_unet
def test_alpha_scales_what_others_trained(row: Row, exported: Export) -> None:
    tensors = exported()
    kohya = to_kohya(tensors, layers(row), "unet")
    halved = {
        key: tensor / 2 if key.endswith(".alpha") else tensor for key, tensor in kohya.items()
    }
    without = {key: tensor for key, tensor in kohya.items() if not key.endswith(".alpha")}
    assert_same(
        from_kohya(halved, layers(row), "unet"),
        {key: tensor / 2 if "lora_B" in key else tensor for key, tensor in tensors.items()},
    )
    assert_same(from_kohya(without, layers(row), "unet"), tensors)


#: Of real U-Nets with two resnets a block: SD 1 has four blocks, SDXL three.
ORIGINAL = {
    "input_blocks.0.0": "conv_in",
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    ),
    "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
    "input_blocks.5.0.in_layers.2": "down_blocks.1.resnets.1.conv1",
    "input_blocks.8.1.transformer_blocks.9.ff.net.0.proj": (
        "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj"
    ),
    "middle_block.0.emb_layers.1": "mid_block.resnets.0.time_emb_proj",
    "middle_block.1.transformer_blocks.0.attn2.to_out.0": (
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    ),
    "middle_block.2.out_layers.3": "mid_block.resnets.1.conv2",
    "output_blocks.0.0.skip_connection": "up_blocks.0.resnets.0.conv_shortcut",
    "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks.5.1.conv": "up_blocks.1.upsamplers.0.conv",
    "output_blocks.8.1.proj_in": "up_blocks.2.attentions.2.proj_in",
    "out.2": "conv_out",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
}


@pytest.mark.parametrize(("original", "module"), ORIGINAL.items())
def test_original_names_are_read(original: str, module: str) -> None:
    blocks = [f"down_blocks.0.resnets.{index}" for index in range(2)]
    known = [*blocks, "up_blocks.0.attentions.2", *ORIGINAL.values()]
    name = f"lora_unet_{original.replace('.', '_')}"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(2, 3),
        f"{name}.lora_up.weight": torch.ones(4, 2),
    }
    converted = from_kohya(tensors, unet_layers(known), "unet")
    assert set(converted) == {f"unet.{module}.lora_A.weight", f"unet.{module}.lora_B.weight"}


FLUX = flux_layers(
    [
        "transformer_blocks.0",
        "single_transformer_blocks.0",
        "single_transformer_blocks.0.attn.to_q",
        "norm_out.linear",
    ]
)


def test_a_lora_trained_on_the_fused_matrix() -> None:
    name = "lora_unet_single_blocks_0_linear1"
    down, up = torch.randn(4, 8), torch.randn(7 * 8, 4)
    tensors = {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(2.0),
    }
    converted = from_kohya(tensors, FLUX, "transformer")
    # Each module on its own memory, or safetensors would not save them.
    assert load(save(converted)).keys() == converted.keys()
    stacked = [
        converted[f"transformer.single_transformer_blocks.0.{module}.lora_B.weight"]
        @ converted[f"transformer.single_transformer_blocks.0.{module}.lora_A.weight"]
        for module in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    ]
    assert [len(part) for part in stacked] == [8, 8, 8, 32]
    torch.testing.assert_close(torch.cat(stacked), up @ down / 2)


def test_onetrainers_names_are_read() -> None:
    name = "lora_transformer_single_transformer_blocks_0_attn_to_q"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(2, 8),
        f"{name}.lora_up.weight": torch.ones(8, 2),
    }
    module = "transformer.single_transformer_blocks.0.attn.to_q"
    converted = from_kohya(tensors, FLUX, "transformer")
    assert set(converted) == {f"{module}.lora_A.weight", f"{module}.lora_B.weight"}


NAME = "lora_unet_double_blocks_0_img_attn_qkv"


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"lora_te_text_model_q.lora_down.weight": (2, 8)}, "has no such layer"),
        ({f"{NAME}.hada_w1_a": (2, 8)}, "no part of a LoRA"),
        ({f"{NAME}.lora_down.weight": (2, 8)}, "a LoRA has"),
        ({f"{NAME}.lora_down.weight": (2, 8), f"{NAME}.lora_up.weight": (24, 3)}, "fit together"),
        ({f"{NAME}.lora_down.weight": (2, 8), f"{NAME}.lora_up.weight": (23, 2)}, "rows of output"),
        ({f"{NAME}.lora_down.weight": (0, 8), f"{NAME}.lora_up.weight": (24, 0)}, "fit together"),
        (
            {
                f"{NAME}.lora_down.weight": (2, 8),
                f"{NAME}.lora_up.weight": (24, 2),
                f"{NAME}.alpha": (2,),
            },
            "must be one number",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(tensors: dict[str, tuple[int, ...]], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        from_kohya({key: torch.ones(shape) for key, shape in tensors.items()}, FLUX, "transformer")


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"transformer.norm_out.linear.lora_A.weight": (2, 8)}, "no half of a LoRA"),
        ({"unet.conv_in.lora_A.weight": (2, 8)}, "no half of a LoRA"),
        (
            {f"transformer.norm_out.linear.lora_{half}.weight": (2, 2) for half in "AB"},
            "has no name for it",
        ),
        (
            {
                f"transformer.transformer_blocks.0.attn.to_{to}.lora_{half}.weight": (rank, rank)
                for to, rank in (("q", 2), ("k", 3))
                for half in "AB"
            },
            "one rank",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(
    tensors: dict[str, tuple[int, ...]], sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        to_kohya({key: torch.ones(shape) for key, shape in tensors.items()}, FLUX, "transformer")
