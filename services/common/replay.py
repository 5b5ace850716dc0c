"""Work that a GPU does again and again, from a recording: one launch instead of thousands.

A step of a large model starts thousands of small kernels, and starting them takes longer than
running them. A CUDA graph keeps their order, arguments and memory, and is started as a whole
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from services.common.transfer import Kept

log = logging.getLogger(__name__)

T = TypeVar("T")
#: From tensors on the device to new tensors there, and whatever is the same each time. It waits
#: for nothing on the host, and sends constants only by ``upload``.
Work = Callable[..., tuple[Sequence[torch.Tensor], T]]

#: Work is recorded when it comes for this time. Before that it runs as it is, which also warms up
#: whatever a recording can't do.
RECORDED_AT = 3


@dataclass(frozen=True)
class _Recording(Generic[T]):
    graph: torch.cuda.CUDAGraph
    #: The graph's memory: inputs to be written, outputs to be read, and constants.
    inputs: Sequence[torch.Tensor]
    outputs: Sequence[torch.Tensor]
    constants: Kept
    same: T

    def replay(self, inputs: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], T]:
        for static, given in zip(self.inputs, inputs, strict=True):
            static.copy_(given)
        self.graph.replay()
        # All recordings share one pool: the next replay writes over these.
        return [output.clone() for output in self.outputs], self.same


class Replays(Generic[T]):
    """Runs work by its key: from the third time on from a recording, where the device can.

    The key decides everything but the values of the inputs. The ``most`` recordings that were used
    last are kept. On the CPU, where it is not ``on``, and where work can't be recorded, it runs as
    it is. Every method runs
    on the device's thread.
    """

    def __init__(self, device: torch.device, most: int = 8, *, on: bool = True) -> None:
        self._most = most
        self._times: OrderedDict[Hashable, int] = OrderedDict()
        self._recordings: OrderedDict[Hashable, _Recording[T] | None] = OrderedDict()
        self._can_record = on and device.type == "cuda"

    def __call__(
        self, key: Hashable, work: Work[T], *inputs: torch.Tensor
    ) -> tuple[Sequence[torch.Tensor], T]:
        """What ``work(*inputs)`` gives. Raises what it raises."""
        if not self._can_record:
            return work(*inputs)
        whole = (key, *((tuple(each.shape), each.dtype) for each in inputs))
        try:
            return self._run(whole, work, inputs)
        except torch.OutOfMemoryError:
            if not self._recordings:
                raise
            self.clear()
            return work(*inputs)

    def clear(self) -> None:
        """Gives the memory of all recordings back. Work is recorded again when it comes again."""
        self._recordings.clear()
        self._times.clear()
        gc.collect()
        torch.cuda.empty_cache()

    def _run(
        self, key: Hashable, work: Work[T], inputs: Sequence[torch.Tensor]
    ) -> tuple[Sequence[torch.Tensor], T]:
        if key not in self._recordings:
            self._times[key] = self._times.pop(key, 0) + 1
            while len(self._times) > 8 * self._most:
                self._times.popitem(last=False)
            if self._times[key] < RECORDED_AT:
                return work(*inputs)
            self._recordings[key] = self._recorded(work, inputs)
            while len(self._recordings) > self._most:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        recording = self._recordings[key]
        return work(*inputs) if recording is None else recording.replay(inputs)

    def _pool(self) -> Any:
        """The memory that all recordings share; it ends with the last of them."""
        for recording in self._recordings.values():
            if recording is not None:
                return recording.graph.pool()
        return torch.cuda.graph_pool_handle()

    def _recorded(self, work: Work[T], inputs: Sequence[torch.Tensor]) -> _Recording[T] | None:
        """``None`` for work that can't be recorded: it waits for the host, say."""
        constants = Kept()
        with constants.used():
            work(*inputs)
        static = [each.detach().clone() for each in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may ask the driver for things meanwhile.
            with (
                constants.used(),
                torch.cuda.graph(graph, pool=self._pool(), capture_error_mode="thread_local"),
            ):
                outputs, same = work(*static)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            log.warning("this work is not recorded, and runs as before: %s", reason)
            return None
        return _Recording(graph, static, [each.detach() for each in outputs], constants, same)
