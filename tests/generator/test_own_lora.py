"""A job's pictures match its LoRA's file, whatever the precision of both."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from safetensors.torch import load

from dualprocess.v1 import generator_pb2 as pb
from dualprocess.v1 import tensor_pb2
from services.common.device import DeviceThread
from services.generator.families.base import GeneratorFamily
from services.generator.generate import generate
from services.generator.lora.export import KOHYA_FILE, LORA_FILE
from tests.generator.rows import ROWS, Row
from tests.generator.specs import optimize_spec
from tests.generator.test_families import lora_spec
from tests.generator.test_optimize import Run, run

BY_PRESET = {row.preset: row for row in ROWS}


@cache
def in_dtype(row: Row, dtype: str) -> GeneratorFamily:
    return row.load(dtype)


async def trained(
    row: Row, device: DeviceThread, base: str, written: tensor_pb2.Dtype.ValueType
) -> tuple[Run, pb.OptimizeSpec]:
    spec = optimize_spec(steps=2)
    spec.image.CopyFrom(row.images[0])
    spec.lora.CopyFrom(lora_spec(row))
    spec.lora.dtype = written
    spec.eval.images = 2
    # Far enough that the last bits of a LoRA move a level of the picture.
    spec.optimizer.lr = 0.1
    return await run(in_dtype(row, base), device, spec), spec


AUTO, FLOAT32, BFLOAT16 = (
    tensor_pb2.DTYPE_UNSPECIFIED,
    tensor_pb2.DTYPE_FLOAT32,
    tensor_pb2.DTYPE_BFLOAT16,
)


@pytest.mark.parametrize(
    ("preset", "base", "written", "found"),
    [
        ("flux-schnell", "bfloat16", AUTO, torch.bfloat16),
        ("flux-schnell", "bfloat16", FLOAT32, torch.float32),
        ("flux-schnell", "float32", BFLOAT16, torch.bfloat16),
        ("sd-1.4", "bfloat16", AUTO, torch.bfloat16),
    ],
)
async def test_the_file_gives_the_jobs_pictures_bit_for_bit(
    device: DeviceThread,
    preset: str,
    base: str,
    written: tensor_pb2.Dtype.ValueType,
    found: torch.dtype,
) -> None:
    row = BY_PRESET[preset]
    told, spec = await trained(row, device, base, written)
    for name in (LORA_FILE, KOHYA_FILE):
        dtypes = {
            tensor.dtype
            for key, tensor in load(told.files[name]).items()
            if not key.endswith("alpha")
        }
        assert dtypes == {found}
        asked = pb.GenerateSpec(
            prompt=spec.prompts[0],
            image=spec.image,
            seeds=[0, 1],
            loras=[pb.LoraReference(blob="own", weight=1.0)],
        )
        family = in_dtype(row, base)
        pictures = generate(family, device, asked, [told.files[name]], name="again")
        async for one in pictures:
            assert one.image == told.files[f"lora-{one.seed}.png"]
            assert one.image != told.files[f"base-{one.seed}.png"]


async def test_a_float32_generators_file_is_float32(device: DeviceThread) -> None:
    told, _ = await trained(BY_PRESET["flux-schnell"], device, "float32", AUTO)
    assert {tensor.dtype for tensor in load(told.files[LORA_FILE]).values()} == {torch.float32}


async def test_checkpoints_stay_float32(device: DeviceThread) -> None:
    row = BY_PRESET["flux-schnell"]
    spec = optimize_spec(steps=2)
    spec.optimizer.checkpoint_every = 1
    told = await run(in_dtype(row, "bfloat16"), device, spec)
    whole = b"".join(
        response.checkpoint.piece.data
        for response in told.responses
        if response.HasField("checkpoint") and response.checkpoint.step == 1
    )
    assert {tensor.dtype for tensor in load(whole).values()} == {torch.float32}
