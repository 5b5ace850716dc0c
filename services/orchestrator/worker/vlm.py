"""A call of one VLM that outlasts the VLM's absence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from services.common.channels import AWAY
from services.common.vlm_metrics import vlm_call, vlm_retried
from services.orchestrator.worker.failures import AttemptFailed, JobStopped, failure
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.targets import Vlm

AnswerT = TypeVar("AnswerT")

#: What one call may take.
SECONDS = 120.0
#: One that is late so often in a row is no more in time for the next call.
_MOST_LATE = 3
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


async def asked(
    call: Callable[[], Awaitable[AnswerT]], vlm: Vlm, method: str, lease: Lease, purpose: str
) -> AnswerT:
    """What the call of ``method`` gives; while the VLM is away the job says so, with its
    ``purpose``, and waits.

    Raises ``JobRefused`` for what the VLM refuses, ``AttemptFailed`` for what it can't do now,
    ``JobStopped`` when a cancel is wanted while the VLM is away.
    """
    tries = late = 0
    while True:
        try:
            with vlm_call(vlm.preset, method):
                answer = await call()
        except grpc.aio.AioRpcError as error:
            fault = failure(error, f"the VLM {vlm}")
            if error.code() not in AWAY:
                raise fault from error
            late = late + 1 if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED else 0
            if late == _MOST_LATE:
                raise AttemptFailed(
                    f"the VLM {vlm} gave no answer {purpose} in time, {late} times in a row"
                ) from error
            if lease.cancel_wanted.is_set():
                raise JobStopped from error
            if tries == 0:
                await lease.waits_for(f"{fault} ({purpose})")
        else:
            if tries:
                await lease.waits_for(None)
            return answer
        await asyncio.sleep(_RETRY_SECONDS[min(tries, len(_RETRY_SECONDS) - 1)])
        tries += 1
        vlm_retried(vlm.preset)
