"""A GPU service whose device breaks stops serving."""

from __future__ import annotations

import io
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image

from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.blame import failed_device
from services.common.channels import open_channel
from services.common.device import DeviceThread
from services.common.device_health import MOST_FAILED, DeviceHealth
from services.common.errors import DeviceFault, OutOfDeviceMemory, StartError
from services.common.server import DEVICE_FAILED
from services.local.ports import free_port
from tests.sick_service import CUDA, ODD, fall_sick, get_well, started, until_ready

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    """While this file exists, the device is sick."""
    return tmp_path / "sick"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def vlm(sick: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    process = started(sick, "services.vlm", "--preset=tiny-idefics2", f"--port={port}")
    with process:
        yield process
        process.kill()


@pytest.fixture
async def channel(port: int, vlm: subprocess.Popen[str]) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(f"127.0.0.1:{port}") as channel:
        await until_ready(vlm, channel)
        yield channel


def request() -> vlm_pb2.ScoreRequest:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    questions = [vlm_pb2.Question(question="Is it red?", answer="Yes")]
    return vlm_pb2.ScoreRequest(images=[buffer.getvalue()], questions=questions)


async def refusal(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await vlm_pb2_grpc.VlmStub(channel).Score(request(), timeout=30)
    assert isinstance(refused.value, grpc.aio.AioRpcError)
    return refused.value


async def test_a_device_that_breaks_ends_its_process_and_lets_no_other_start(
    channel: grpc.aio.Channel, vlm: subprocess.Popen[str], sick: Path, port: int
) -> None:
    stub = vlm_pb2_grpc.VlmStub(channel)
    described = await stub.Describe(vlm_pb2.VlmDescribeRequest())
    assert f":{port}" in described.device_id
    watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    healths = aiter(watching)
    assert (await anext(healths)).status == health_pb2.HealthCheckResponse.SERVING
    fall_sick(sick, ODD)
    for _ in range(MOST_FAILED - 1):
        refused = await refusal(channel)
        assert (refused.code(), refused.details()) == (
            grpc.StatusCode.INTERNAL,
            f"RuntimeError: {ODD}",
        )
        assert failed_device(refused, "") == described.device_id
    get_well(sick)
    await stub.Score(request(), timeout=30)
    fall_sick(sick, CUDA)
    refused = await refusal(channel)
    assert refused.code() == grpc.StatusCode.INTERNAL
    assert failed_device(refused, "") == described.device_id
    assert (await anext(healths)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await refusal(channel)).code() == grpc.StatusCode.UNAVAILABLE
    assert vlm.wait(20) == DEVICE_FAILED
    assert vlm.stderr is not None
    assert "device fault" in vlm.stderr.read().splitlines()[-1]
    with started(sick, "services.vlm", "--preset=tiny-idefics2", f"--port={port}") as again:
        assert again.wait(90) == 1
        assert again.stderr is not None
        last = again.stderr.read().splitlines()[-1]
    assert last.startswith("vlm: the device")
    assert CUDA in last


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread("cpu")
    yield thread
    thread.close()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("CUDA error: device-side assert triggered\nhints"), DeviceFault),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceFault),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), DeviceFault),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), DeviceFault),
        (torch.AcceleratorError("an illegal instruction"), DeviceFault),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), OutOfDeviceMemory),
        (torch.AcceleratorError("CUDA error: out of memory"), OutOfDeviceMemory),
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfDeviceMemory),
        (RuntimeError("shape '[2]' is invalid"), RuntimeError),
    ],
)
async def test_what_a_device_says_is_told_from_what_a_call_did(
    device: DeviceThread, error: Exception, kind: type[Exception]
) -> None:
    def work() -> None:
        raise error

    with pytest.raises(kind) as raised:
        await device.run(work)
    assert type(raised.value) is kind


async def test_what_wrapped_the_devices_error_is_looked_through(device: DeviceThread) -> None:
    def work() -> None:
        try:
            raise RuntimeError(CUDA)
        except RuntimeError as error:
            raise ValueError("no image came out") from error

    with pytest.raises(DeviceFault):
        await device.run(work)


class Model:
    """Answers a fixed input."""

    def __init__(self) -> None:
        self.answer = torch.tensor([1.0, -2.0])

    def probe(self) -> torch.Tensor:
        return self.answer


async def test_several_failures_in_a_row_are_the_devices_fault(device: DeviceThread) -> None:
    model = Model()
    health = DeviceHealth(device, "cpu", model.probe)
    await health.begin()
    for _ in range(2):
        for _ in range(MOST_FAILED - 1):
            await health.failed(ValueError("odd"))
        health.answered()
    assert not health.sick.is_set()
    for _ in range(MOST_FAILED):
        await health.failed(ValueError("odd"))
    assert health.sick.is_set()
    assert "3 calls in a row failed, the last: ValueError: odd" in health.fault


@pytest.mark.parametrize("answer", [[1.0, float("nan")], [1.0, -3.0]])
async def test_a_device_that_answers_otherwise_after_a_fault_is_sick(
    device: DeviceThread, answer: list[float]
) -> None:
    model = Model()
    health = DeviceHealth(device, "cpu", model.probe)
    await health.begin()
    await health.failed(ValueError("odd"))
    assert not health.sick.is_set()
    model.answer = torch.tensor(answer)
    await health.failed(ValueError("odd"))
    assert health.sick.is_set()
    assert "odd" in health.fault
    assert "a fixed input" in health.fault


async def test_a_model_whose_answer_is_not_finite_does_not_start(device: DeviceThread) -> None:
    model = Model()
    model.answer = torch.tensor([float("inf")])
    with pytest.raises(StartError, match=r"the device cpu failed its self-test: .*not finite"):
        await DeviceHealth(device, "cpu", model.probe).begin()
