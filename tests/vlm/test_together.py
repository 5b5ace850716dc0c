"""Guide calls that wait for the device together go through the model together."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import grpc
import pytest
import torch

from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common import torch_tensors
from services.common.channels import LIMITS, open_channel
from services.common.device import DeviceThread
from services.common.presets import VlmPreset
from services.common.server import StatusInterceptor
from services.vlm.families.base import VlmFamily
from services.vlm.servicer import VlmServicer
from services.vlm.together import Together

SMILING = vlm_pb2.Question(question="Is the man smiling?", answer="Yes")
SOFA = vlm_pb2.Question(question="What color is the sofa?", answer="a red sofa", weight=2.0)
GUARD = vlm_pb2.GuideGuard(margin=0.9, worst_case=0.1)


@dataclass
class Service:
    stub: vlm_pb2_grpc.VlmAsyncStub
    device: DeviceThread
    #: The number of images in each pass through the vision tower.
    passes: list[int]

    async def answers(
        self, requests: Sequence[vlm_pb2.GuideRequest]
    ) -> list[vlm_pb2.GuideResponse | BaseException]:
        """Of calls that all come while the device is busy."""
        with busy(self.device):
            calls = [asyncio.ensure_future(self.stub.Guide(one)) for one in requests]
            await wait_for(self.device, 1 + len(requests))
        return await asyncio.gather(*calls, return_exceptions=True)


@contextlib.contextmanager
def busy(device: DeviceThread) -> Iterator[None]:
    done = threading.Event()
    waiting = asyncio.ensure_future(device.run(done.wait))
    try:
        yield
    finally:
        done.set()
        del waiting


async def wait_for(device: DeviceThread, calls: int) -> None:
    while device.waiting != calls:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.fixture
def joins() -> bool | None:
    return True


@pytest.fixture
async def service(
    preset: VlmPreset, vlm: VlmFamily, monkeypatch: pytest.MonkeyPatch, joins: bool | None
) -> AsyncIterator[Service]:
    passes = []
    image_features = vlm.image_features

    def counted(pixel_values: torch.Tensor) -> torch.Tensor:
        passes.append(len(pixel_values))
        return image_features(pixel_values)

    monkeypatch.setattr(vlm, "image_features", counted)
    device = DeviceThread("cpu")
    server = grpc.aio.server(options=LIMITS, interceptors=[StatusInterceptor()])
    small = preset.model_copy(update={"conversations_at_once": 8})
    monkeypatch.setattr(vlm, "preset", small)
    vlm_pb2_grpc.add_VlmServicer_to_server(VlmServicer(small, vlm, device, joins=joins), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield Service(vlm_pb2_grpc.VlmStub(channel), device, passes)
    await server.stop(None)
    device.close()


def request(
    images: torch.Tensor,
    questions: Sequence[vlm_pb2.Question] = (SMILING, SOFA),
    guard: vlm_pb2.GuideGuard | None = None,
) -> vlm_pb2.GuideRequest:
    return vlm_pb2.GuideRequest(
        images=torch_tensors.to_proto(images), questions=questions, guard=guard
    )


@pytest.mark.parametrize("guard", [None, GUARD], ids=["plain", "guarded"])
async def test_calls_that_wait_share_a_pass_and_answers_stay_their_own(
    service: Service, images: dict[str, torch.Tensor], guard: vlm_pb2.GuideGuard | None
) -> None:
    """The loss of a call is a mean over its own images, however many there are."""
    photo, low = images["photo"] * 0.6, images["low"] * 0.8
    batches = [photo, torch.cat([low, photo.flip(-1)]), low.flip(-1)]
    requests = [request(batch, guard=guard) for batch in batches]
    together = await service.answers(requests)
    runs = 1 if guard is None else 2
    assert service.passes == [4] * runs
    for one, wanted in zip(together, requests, strict=True):
        alone = await service.stub.Guide(wanted)
        assert isinstance(one, vlm_pb2.GuideResponse)
        assert one.loss == pytest.approx(alone.loss, abs=1e-5)
        for ours, theirs in zip(one.images, alone.images, strict=True):
            assert [a.predicted for a in ours.answers] == [a.predicted for a in theirs.answers]
            assert [a.loss for a in ours.answers] == pytest.approx(
                [a.loss for a in theirs.answers], abs=1e-5
            )
        gradients = [
            torch_tensors.from_proto(each.gradient, name="gradient") for each in (one, alone)
        ]
        difference = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
        assert difference < 1e-5
    assert len(service.passes) == 4 * runs, "alone, each has a pass of its own"


async def test_only_what_is_alike_and_fits_goes_together(
    service: Service, images: dict[str, torch.Tensor]
) -> None:
    """At most 8 conversations: four images with two questions each."""
    photo = images["photo"]
    requests = [
        request(photo),
        request(photo, [SMILING]),
        request(images["wide"]),
        request(photo.bfloat16()),
        request(photo, guard=vlm_pb2.GuideGuard(margin=0.5)),
        request(photo.expand(4, -1, -1, -1)),
        request(photo),
    ]
    answered = await service.answers(requests)
    assert not [one for one in answered if isinstance(one, BaseException)]
    assert sorted(service.passes) == [1, 1, 1, 1, 2, 4]


async def test_a_call_that_fails_fails_alone(
    service: Service, images: dict[str, torch.Tensor]
) -> None:
    spoiled = request(images["photo"])
    spoiled.images.data = b"\xff" * len(spoiled.images.data)
    good = [request(images["photo"]), request(images["photo"].flip(-1))]
    first, wrong, last = await service.answers([good[0], spoiled, good[1]])
    assert isinstance(wrong, grpc.aio.AioRpcError)
    assert wrong.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert isinstance(first, vlm_pb2.GuideResponse)
    assert isinstance(last, vlm_pb2.GuideResponse)
    assert first.gradient != last.gradient


async def test_a_caller_that_left_is_not_computed(
    service: Service, images: dict[str, torch.Tensor]
) -> None:
    with busy(service.device):
        stays = asyncio.ensure_future(service.stub.Guide(request(images["photo"])))
        leaves = asyncio.ensure_future(service.stub.Guide(request(images["photo"])))
        await wait_for(service.device, 3)
        leaves.cancel()
        await wait_for(service.device, 2)
    await stays
    assert service.passes == [1]


async def test_what_was_too_much_for_the_device_is_not_tried_again() -> None:
    tried = []

    def compute(calls: Sequence[int]) -> list[int]:
        tried.append(len(calls))
        if len(calls) > 2:
            raise torch.OutOfMemoryError
        return [2 * call for call in calls]

    device = DeviceThread("cpu")
    together: Together[int, int] = Together(device, compute, on=True)
    for passes in ([4, 1, 1, 1, 1], [2, 2]):
        tried.clear()
        with busy(device):
            calls = [asyncio.ensure_future(together.run(i, "kind", 1, 16)) for i in range(4)]
            await wait_for(device, 5)
        assert await asyncio.gather(*calls) == [0, 2, 4, 6]
        assert tried == passes
    device.close()


@pytest.mark.parametrize("joins", [None], ids=["as it is by default on the CPU"])
async def test_on_the_cpu_a_jobs_bits_do_not_depend_on_other_jobs(
    service: Service, images: dict[str, torch.Tensor]
) -> None:
    photo = request(images["photo"])
    answers = await service.answers([photo] * 3)
    assert [isinstance(one, vlm_pb2.GuideResponse) for one in answers] == [True] * 3
    assert service.passes == [len(images["photo"])] * 3
