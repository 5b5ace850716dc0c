"""The one thread that owns a device.

Every tensor operation of a service runs on it, in the order of the calls. So jobs alternate between
operations, never within one, and the event loop stays free for gRPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import torch

from services.common.attention import choose_kernels
from services.common.device_errors import is_device_error, is_out_of_memory
from services.common.devices import named
from services.common.errors import DeviceFault, OutOfDeviceMemory
from services.common.presets import AnyPreset

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Closable(Protocol):
    def close(self) -> None: ...


ClosableT = TypeVar("ClosableT", bound=Closable)


class DeviceThread:
    """Runs functions on the thread that owns ``devices``, one at a time. ``device`` is the first
    of them, ``name`` tells all.

    ``name`` is as ``--device`` names them: one, or ``several`` if that is allowed. Raises
    ``StartError`` for a device that this machine has not, and for a list that can't be.
    """

    def __init__(self, name: str = "auto", *, threads: int = 1, several: bool = False) -> None:
        self.devices = named(name, several=several)
        self.device = self.devices[0]
        self.name = ",".join(map(str, self.devices))
        choose_kernels(self.device)
        #: How many functions run or wait to run.
        self.waiting = 0
        self._pool = ThreadPoolExecutor(1, "device", self._begin, (threads,))

    def _begin(self, threads: int) -> None:
        # Both are set per thread: the size of the OpenMP pool, and the GPU whose work is recorded.
        torch.set_num_threads(threads)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function(*args, **kwargs)`` on the device's thread.

        Work that has begun can't be cancelled: it continues even if the caller is gone. Raises what
        the function raises; ``OutOfDeviceMemory`` if torch ran out of memory, and ``DeviceFault``
        if the device broke.
        """
        loop = asyncio.get_running_loop()
        self.waiting += 1
        try:
            # What is logged in the thread is about the same job.
            context = contextvars.copy_context()
            work = partial(context.run, function, *args, **kwargs)
            return await loop.run_in_executor(self._pool, work)
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfDeviceMemory(
                    f"{self.name} is out of memory: ask for a smaller image or batch"
                ) from error
            if is_device_error(error):
                reason = str(error).partition("\n")[0]
                raise DeviceFault(f"{self.name}: {reason}") from error
            raise
        finally:
            self.waiting -= 1

    @contextlib.asynccontextmanager
    async def opened(
        self, factory: Callable[P, ClosableT], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[ClosableT]:
        """What ``factory`` makes, made and in the end closed on the device's thread.

        It is closed however the block ends, also when the caller is cancelled while the factory
        still runs.
        """
        opening = asyncio.ensure_future(self.run(factory, *args, **kwargs))
        try:
            yield await asyncio.shield(opening)
        finally:
            closing = self._close(opening)
            # A frame that refers to its own exception is a reference cycle, which would keep the
            # device's memory.
            del opening
            await asyncio.shield(closing)

    async def _close(self, opening: asyncio.Future[ClosableT]) -> None:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await self.run(opening.result().close)

    def close(self) -> None:
        """Waits for the current call, and drops the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def warn_of_cpu(asked: str, device: DeviceThread, preset: AnyPreset) -> None:
    """Logs a warning if ``auto`` chose the CPU for a model that needs a GPU."""
    if asked == "auto" and device.device.type == "cpu" and preset.is_on_hub:
        log.warning(
            "NO GPU IS FOUND: %s runs on the CPU, which needs hours where a GPU needs minutes. "
            "torch %s says: %s. If you want the CPU, use --device cpu",
            preset.name,
            torch.__version__,
            _why_not_cuda(),
        )


def _why_not_cuda() -> str:
    if torch.version.cuda is None:
        return "this build has no CUDA; install another build"
    try:
        torch.empty(0, device="cuda")
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return "CUDA is available now, but was not a moment ago"
