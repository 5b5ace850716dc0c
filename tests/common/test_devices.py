"""What ``--device`` may name."""

from __future__ import annotations

import pytest
import torch

from services.common.device import DeviceThread
from services.common.device_health import identity
from services.common.device_memory import DeviceMemory
from services.common.errors import StartError

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


def test_several_where_the_service_can() -> None:
    device = DeviceThread("cpu, cpu", several=True)
    assert device.devices == [CPU, CPU]
    assert (device.device, device.name) == (CPU, "cpu,cpu")
    device.close()


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_one_is_one_where_several_could_be(name: str) -> None:
    device = DeviceThread(name, several=True)
    assert device.devices == [device.device]
    device.close()


def test_a_generator_has_one() -> None:
    with pytest.raises(StartError, match="a generator runs on one device, only a VLM on"):
        DeviceThread("cpu,cpu")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cpu,", "--device cpu,: a device is missing next to a comma"),
        ("cpu,gpu", "--device gpu is unknown; choose cpu"),
        ("auto,cpu", "--device auto is unknown"),
        ("cpu,meta", "--device cpu,meta: name devices of one type, like cuda:0,cuda:1"),
        ("meta,meta:0", "--device meta,meta:0: names meta:0 twice; name each device once"),
    ],
)
def test_lists_that_cannot_be_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(StartError, match=sentence):
        DeviceThread(name, several=True)


def test_metrics_and_name_of_several() -> None:
    (used, *_) = DeviceMemory([CPU, CPU]).collect()
    assert [sample.labels for sample in used.samples] == [{"device": "cpu"}]
    assert identity([CPU, CPU], 50052).endswith(":50052")


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_that_is_named_twice() -> None:
    with pytest.raises(StartError, match="names cuda:0 twice; name each device once"):
        DeviceThread("cuda,cuda:0", several=True)


@pytest.mark.gpu
@needs_two
async def test_two_gpus() -> None:
    device = DeviceThread("cuda:1,cuda:0", several=True)
    assert await device.run(torch.cuda.current_device) == 1, "what is recorded there"
    assert len({*identity(device.devices, 0).split("+")}) == 2
    (used, *_) = DeviceMemory(device.devices).collect()
    assert [sample.labels["device"] for sample in used.samples] == ["cuda:1", "cuda:0"]
    device.close()
