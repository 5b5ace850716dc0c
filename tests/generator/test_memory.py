"""A call that failed leaves nothing on the device."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import torch
from safetensors.torch import save

from dualprocess.v1 import generator_pb2_grpc
from services.common.device import DeviceThread
from services.common.errors import InvalidInput, OutOfDeviceMemory
from services.generator.adapters.adapted import Adapted, AdaptedLinear
from services.generator.adapters.low_rank import LowRank
from services.generator.families.base import GeneratorFamily
from services.generator.lora.adapter import LoraAdapter
from services.generator.lora.loaded import LoadedLoras
from services.generator.memory import levels
from services.generator.training import Made, Training
from tests.generator.specs import image_spec, lora_spec, optimize_spec
from tests.generator.wire import ScriptedVlm, requests, vlm_served, whole


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[torch.Tensor]]]:
    """The images of each step, with their graphs. Only what nobody refers to is freed."""
    made: list[weakref.ref[torch.Tensor]] = []
    forward = Training.forward

    def noted(self: Training, step: int, micro_step: int) -> Made:
        one = forward(self, step, micro_step)
        made.append(weakref.ref(one.images))
        return one

    monkeypatch.setattr(Training, "forward", noted)
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (grpc.StatusCode.DATA_LOSS, grpc.StatusCode.OK),
    ],
)
async def test_a_step_that_failed_frees_its_graph(
    stub: generator_pb2_grpc.GeneratorAsyncStub,
    vlm: ScriptedVlm,
    images: list[weakref.ref[torch.Tensor]],
    refusal: grpc.StatusCode,
    status: grpc.StatusCode,
) -> None:
    vlm.refuse = refusal
    async with vlm_served(vlm) as port:
        call = stub.Optimize(iter(requests(optimize_spec(steps=2, target=f"127.0.0.1:{port}"))))
        with contextlib.suppress(grpc.aio.AioRpcError):
            await whole(call)
        assert await call.code() == status
        assert images
        assert [image() for image in images] == [None] * len(images)


def adapters(family: GeneratorFamily) -> list[str]:
    on = [
        name
        for name, layer in family.denoiser.named_modules()
        if isinstance(layer, Adapted) and layer.on
    ]
    return [*family.adapters.adapters, *on]


def out_of_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    "place",
    [
        "services.generator.lora.adapter._initialise",
        "services.generator.training.torch.optim.AdamW",
    ],
)
async def test_a_job_that_does_not_fit_leaves_no_lora(
    schnell: GeneratorFamily, device: DeviceThread, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(place, out_of_memory)
    with pytest.raises(OutOfDeviceMemory):
        await device.run(Training, schnell, optimize_spec(), "large")
    assert not adapters(schnell)


async def test_a_lora_that_is_attached_half_way_is_taken_off(
    load: Callable[[str], GeneratorFamily], device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = load("flux-schnell")
    new_lora, made = AdaptedLinear.new_lora, 0

    def second_fails(self: AdaptedLinear, *args: Any) -> LowRank:
        nonlocal made
        made += 1
        if made > 1:
            out_of_memory()
        return new_lora(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(AdaptedLinear, "new_lora", second_fails)
        with pytest.raises(OutOfDeviceMemory):
            await device.run(Training, family, optimize_spec(), "large")
    assert made == 2
    assert not adapters(family)
    training = await device.run(Training, family, optimize_spec(), "next")
    await device.run(training.close)
    assert not adapters(family)


async def test_a_full_device_is_no_fault_of_a_lora(
    schnell: GeneratorFamily, device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "transformer_blocks.0.attn.to_q.lora_"
    file = save({f"{name}A.weight": torch.ones(1, 1), f"{name}B.weight": torch.ones(1, 1)})
    monkeypatch.setattr("services.generator.lora.loaded.fill", out_of_memory)
    with pytest.raises(OutOfDeviceMemory):
        await device.run(LoadedLoras, schnell, "large", [file], [1.0])
    assert not adapters(schnell)


async def test_text_encoders_leave_the_device_when_one_does_not_fit(
    load: Callable[[str], GeneratorFamily], device: DeviceThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = load("flux-schnell")
    wanted = load("flux-schnell").encode("a square", image_spec())
    levels.apply(family, "lean")
    second = family.text_encoders[1].encoder.block[1].layer[0].layer_norm
    with monkeypatch.context() as patched:
        patched.setattr(second, "forward", out_of_memory)
        with pytest.raises(OutOfDeviceMemory):
            await device.run(family.encode, "a square", image_spec())
    on_device = [own for encoder in family.text_encoders for own in encoder.parameters()]
    # Shapes without memory.
    assert {own.untyped_storage().nbytes() for own in on_device} == {4}
    square = await device.run(family.encode, "a square", image_spec())
    assert all(torch.equal(square[name], wanted[name]) for name in wanted)


def test_text_encoders_come_to_the_device_once_for_all_prompts(
    load: Callable[[str], GeneratorFamily], monkeypatch: pytest.MonkeyPatch
) -> None:
    family, came = load("flux-schnell"), 0
    on_device = family.texts.on_device

    def noted() -> contextlib.AbstractContextManager[None]:
        nonlocal came
        came += 1
        return on_device()

    monkeypatch.setattr(family.texts, "on_device", noted)
    prompts = [f"{number} circles" for number in range(100)] + ["7 circles"]
    encoded = family.encode_all(prompts, image_spec())
    assert came == 1
    assert encoded[7] is encoded[100]
    assert encoded[99] is family.encode("99 circles", image_spec())
    assert came == 1


def test_a_convolution_in_groups_is_refused_by_name(
    load: Callable[[str], GeneratorFamily],
) -> None:
    family, spec = load("sana-1.6b"), lora_spec()
    spec.target_modules[:] = ["to_q", "ff.conv_depth"]
    with pytest.raises(InvalidInput, match=r"'ff.conv_depth' names a convolution with groups"):
        LoraAdapter(family, "refused", spec, seed=0)
    assert not adapters(family)
