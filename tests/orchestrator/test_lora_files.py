"""LoRA files from elsewhere: what a submission finds out from their header."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from services.common.presets import load_presets
from tests.orchestrator.conftest import SPEC, Api

#: What the generator of ``SPEC`` adapts.
TARGETS = load_presets().generator(SPEC["generator"]).lora.target_modules

Shapes = dict[str, tuple[int, ...]]


def file(shapes: Shapes, metadata: dict[str, str] | None = None, *, header_bytes: int = 0) -> bytes:
    """Zeros. The header is padded to ``header_bytes``, where that is more."""
    tensors: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for side in shape:
            size *= side
        tensors[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(tensors).encode()
    text += b" " * (header_bytes - len(text))
    return struct.pack("<Q", len(text)) + text + bytes(at)


def lora(*layers: str, ends: tuple[str, str] = ("lora_A", "lora_B"), rank: int = 2) -> Shapes:
    down, up = ends
    return {
        key: shape
        for layer in layers
        for key, shape in (
            (f"{layer}.{down}.weight", (rank, 4)),
            (f"{layer}.{up}.weight", (12, rank)),
        )
    }


KOHYA = ("lora_down", "lora_up")
TO_Q = "transformer.transformer_blocks.0.attn.to_q"


async def submitted(api: Api, data: bytes, **settings: Any) -> tuple[int, dict[str, Any]]:
    start = {"file": base64.b64encode(data).decode()}
    answer = await api.http.post("/v1/jobs", json=SPEC | {"lora": {"start": start} | settings})
    return answer.status_code, answer.json()


#: Lengths whose first bytes are those of a pickle's protocols 2 to 5, of a zip's `P`, of `{`.
LENGTHS = (0x180, 0x380, 0x0280, 0x0480, 0x10580, 0x04B50, 0x37B)


@pytest.mark.parametrize("length", LENGTHS, ids=hex)
async def test_a_files_first_byte_may_be_any(api: Api, length: int) -> None:
    data = file(lora(TO_Q), header_bytes=length)
    assert data[:2] == struct.pack("<Q", length)[:2]
    code, answer = await submitted(api, data)
    assert code == 202, answer
    assert answer["warnings"] == []


@pytest.mark.parametrize(
    "data",
    [b"\x80\x02}q\x00.", b"\x80\x04\x95\x10\x00\x00\x00\x00{}.", b"PK\x03\x04" + bytes(60)],
)
async def test_pickles_are_still_called_so(api: Api, data: bytes) -> None:
    code, answer = await submitted(api, data)
    assert code == 422
    assert "is a pickle" in answer["errors"][0]["message"]


TAKEN: list[tuple[str, Shapes]] = [
    ("diffusers", lora(TO_Q)),
    ("bare", lora("transformer_blocks.0.attn.to_q")),
    ("peft", lora("base_model.model.transformer_blocks.0.attn.to_q")),
    ("adapter", lora(TO_Q, ends=("lora_A.default", "lora_B.default"))),
    ("kohya", lora("lora_unet_double_blocks_0_img_attn_proj", ends=KOHYA)),
    ("onetrainer", lora("lora_transformer_transformer_blocks_0_attn_to_q", ends=KOHYA)),
    ("comfyui", lora("diffusion_model.double_blocks.7.img_attn.qkv")),
    (
        "xlabs",
        {
            "double_blocks.0.processor.qkv_lora1.down.weight": (2, 4),
            "double_blocks.0.processor.qkv_lora1.up.weight": (12, 2),
        },
    ),
]


@pytest.mark.parametrize(("_name", "shapes"), TAKEN, ids=[name for name, _ in TAKEN])
async def test_layouts_are_taken(api: Api, _name: str, shapes: Shapes) -> None:
    code, answer = await submitted(api, file(shapes))
    assert code == 202, answer


async def test_the_answer_tells_what_is_left_out(api: Api) -> None:
    text = lora("lora_te1_text_model_encoder_layers_0_mlp_fc1", ends=KOHYA)
    image = lora("lora_unet_double_blocks_0_img_attn_proj", ends=KOHYA)
    code, answer = await submitted(api, file(text | image))
    assert code == 202, answer
    assert [warning[:51] for warning in answer["warnings"]] == [
        "lora.start: 1 of its 2 LoRAs are for text encoders,"
    ]
    read = await api.http.get(f"/v1/jobs/{answer['id']}")
    assert read.json()["warnings"] == answer["warnings"]


async def test_pefts_alpha_is_told(api: Api) -> None:
    code, answer = await submitted(api, file(TAKEN[2][1]))
    assert code == 202
    assert "peft keeps alpha in adapter_config.json" in answer["warnings"][0]


REFUSED: list[tuple[Shapes, str, str]] = [
    (lora(TO_Q) | {f"{TO_Q}.dora_scale": (1,)}, "lora.start.file", "a DoRA"),
    (lora(TO_Q) | {f"{TO_Q}.lora_B.bias": (1,)}, "lora.start.file", "a LoRA with biases"),
    ({"lora_unet_x.hada_w1_a": (1, 1)}, "lora.start.file", "a LoHa"),
    ({"lora_unet_x.lokr_w1": (1, 1)}, "lora.start.file", "a LoKr"),
    (lora("lora_te_x", ends=KOHYA), "lora.start.file", "only LoRAs of text encoders"),
    (
        lora("lora_unet_down_blocks_0_attentions_0_proj_in", ends=KOHYA),
        "lora.start.file",
        "they are those of sdxl or stable_diffusion: name a generator of that family",
    ),
    (lora("transformer.nothing.known"), "lora.start.file", "trained on this model"),
    ({f"{TO_Q}.lora_A.weight": (1, 1)}, "lora.start.file", "one half"),
    (lora(TO_Q, rank=200), "lora.rank", "write 200 or more"),
    (
        lora(
            "lora_unet_single_blocks_0_linear2",
            "lora_unet_single_blocks_1_linear2",
            "lora_unet_single_blocks_1_modulation_lin",
            ends=KOHYA,
        ),
        "lora.target_modules",
        f"doesn't name 3 layers .*; write [{', '.join([*TARGETS, 'proj_out', 'norm.linear'])}]",
    ),
]


@pytest.mark.parametrize(("shapes", "field", "sentence"), REFUSED, ids=[one[2] for one in REFUSED])
async def test_what_cannot_be_is_refused_at_once(
    api: Api, shapes: Shapes, field: str, sentence: str
) -> None:
    code, answer = await submitted(api, file(shapes))
    assert code == 422, answer
    messages = {error["field"]: error["message"] for error in answer["errors"]}
    for part in sentence.split(" .*"):
        assert part in messages[field]


async def test_rank_and_modules_are_refused_together_and_can_be_pasted(api: Api) -> None:
    data = file(lora("transformer.single_transformer_blocks.0.norm.linear", rank=128))
    code, answer = await submitted(api, data)
    assert code == 422
    assert {error["field"] for error in answer["errors"]} == {"lora.rank", "lora.target_modules"}
    (message,) = (e["message"] for e in answer["errors"] if e["field"] == "lora.target_modules")
    pasted = message.rpartition("[")[2].removesuffix("]").split(", ")
    code, answer = await submitted(api, data, rank=128, target_modules=pasted)
    assert code == 202, answer


@pytest.mark.parametrize("weight", [0, 0.0, -0.0])
async def test_a_weight_of_0_learns_nothing(api: Api, weight: float) -> None:
    answer = await api.http.post("/v1/jobs", json=SPEC | {"lora": {"weight": weight}})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "lora.weight"
    assert "must not be 0" in error["message"]
