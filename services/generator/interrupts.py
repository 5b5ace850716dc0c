"""The interruptions that a client can ask for while a job runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dualprocess.v1 import tensor_pb2
from services.generator.guide import Guidance, Guide


class Suspended(Exception):
    """The job will go on elsewhere; the current step is dropped."""


@dataclass(frozen=True)
class Interrupts:
    """``stop``: end after the current step, and export. ``suspend``: end now, and export nothing;
    it has no effect on a job that was stopped."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    suspend: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def suspended(self) -> bool:
        return self.suspend.is_set() and not self.stop.is_set()

    @property
    def any(self) -> bool:
        return self.suspend.is_set() or self.stop.is_set()

    def during(self, guide: Guide) -> Guide:
        """The same guide, but a suspension raises ``Suspended`` while a call of it is running."""

        async def guide_unless_suspended(images: tensor_pb2.Tensor) -> Guidance:
            asked = asyncio.ensure_future(guide(images))
            suspend = asyncio.ensure_future(self.suspend.wait())
            try:
                await asyncio.wait({asked, suspend}, return_when=asyncio.FIRST_COMPLETED)
                if asked.done() or not self.suspended:
                    return await asked
                raise Suspended
            finally:
                suspend.cancel()
                asked.cancel()
                # A frame that holds what it fails with is a cycle, and keeps the step's graph.
                del asked

        return guide_unless_suspended
