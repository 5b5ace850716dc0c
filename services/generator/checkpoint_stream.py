"""Checkpoints on their way to the client, while the next steps go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dualprocess.v1 import generator_pb2 as pb
from services.common.device import DeviceThread
from services.generator.blobs import pieces
from services.generator.checkpoint import Checkpoint
from services.generator.training import Training

Emit = Callable[[pb.OptimizeResponse], Awaitable[None]]


class CheckpointStream:
    """Only the copy of the weights takes time on the device's thread.

    ``emit`` may be called while another call of it is under way.
    """

    def __init__(
        self, device: DeviceThread, training: Training, emit: Emit, spec: pb.OptimizeSpec
    ) -> None:
        self._device = device
        self._training = training
        self._emit = emit
        self._every = spec.optimizer.checkpoint_every
        self._last = spec.resume.step
        self._sending: asyncio.Task[None] | None = None

    def due(self, steps_done: int) -> bool:
        return bool(self._every) and steps_done % self._every == 0

    async def take(self, steps_done: int) -> None:
        """Begins to send a checkpoint of the job as it is now, if the job wants checkpoints and
        this is a new one."""
        await self.flush()
        if not self._every or steps_done == self._last:
            return
        self._last = steps_done
        checkpoint = await self._device.run(self._training.checkpoint, steps_done)
        self._sending = asyncio.create_task(self._send(checkpoint))

    async def flush(self) -> None:
        """Waits until all is sent. Raises what the sending raised."""
        if self._sending is not None:
            await self._sending
            self._sending = None

    async def abandon(self) -> None:
        """Sends nothing more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _send(self, checkpoint: Checkpoint) -> None:
        file = await asyncio.to_thread(checkpoint.write)
        for piece in pieces("checkpoint", file):
            message = pb.Checkpoint(step=checkpoint.steps_done, piece=piece)
            await self._emit(pb.OptimizeResponse(checkpoint=message))
