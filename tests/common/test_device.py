"""The one thread that owns a device."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from services.common.device import DeviceThread
from services.common.errors import OutOfDeviceMemory


@pytest.fixture
def device() -> Iterator[DeviceThread]:
    thread = DeviceThread("cpu")
    yield thread
    thread.close()


class Loaded:
    def __init__(self, log: list[str]) -> None:
        time.sleep(0.1)
        log.append("opened")
        self._log = log

    def close(self) -> None:
        self._log.append("closed")


async def test_everything_runs_on_one_thread_in_order(device: DeviceThread) -> None:
    seen: list[tuple[int, int]] = []

    def work(number: int) -> None:
        time.sleep(0.001 * (5 - number))
        seen.append((number, threading.get_ident()))

    await asyncio.gather(*(device.run(work, number) for number in range(5)))
    assert [number for number, _ in seen] == list(range(5))
    assert {thread for _, thread in seen} != {threading.get_ident()}
    assert len({thread for _, thread in seen}) == 1


async def test_the_event_loop_stays_free(device: DeviceThread) -> None:
    running = asyncio.ensure_future(device.run(time.sleep, 0.2))
    begin = time.monotonic()
    await asyncio.sleep(0.01)
    assert time.monotonic() - begin < 0.15
    await running


async def test_a_cancelled_caller_still_closes_what_it_opened(device: DeviceThread) -> None:
    log: list[str] = []

    async def use() -> None:
        async with device.opened(Loaded, log):
            raise AssertionError("cancelled before it was open")

    task = asyncio.create_task(use())
    await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert log == ["opened", "closed"]


async def test_out_of_memory_is_a_sentence(device: DeviceThread) -> None:
    def hungry() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 99 GiB")

    with pytest.raises(OutOfDeviceMemory, match="ask for a smaller image or batch"):
        await device.run(hungry)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_auto_is_the_gpu_where_there_is_one() -> None:
    device = DeviceThread("auto")
    assert device.device.type == "cuda"
    device.close()
