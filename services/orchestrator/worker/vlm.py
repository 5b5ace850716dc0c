"""A call of one VLM that waits while the VLM is away."""

from __future__ import annotations

from typing import TypeVar

import grpc

from services.common.errors import VlmLate, VlmsFailed
from services.common.replicas import MOST_LATE, Call, Replicas, Told
from services.orchestrator.worker.failures import AttemptFailed, JobRefused, JobStopped, failure
from services.orchestrator.worker.lease import Lease

AnswerT = TypeVar("AnswerT")

#: What one call may take.
SECONDS = 120.0


async def asked(
    call: Call[AnswerT], vlm: Replicas, name: str, lease: Lease, purpose: str
) -> AnswerT:
    """The result of the call. While the VLM is away, the job waits, and says for what: ``name`` and
    ``purpose`` are for that sentence.

    Raises ``JobRefused`` if the VLM refuses, or fails twice; ``AttemptFailed`` if it can't do it
    now; ``JobStopped`` if the job is cancelled while the VLM is away.
    """
    waits = False

    async def away(reason: str) -> None:
        nonlocal waits
        if lease.cancel_wanted.is_set():
            raise JobStopped
        if not waits:
            waits = True
            await lease.waits_for(f"{reason} ({purpose})")

    try:
        answer = await vlm.ask(call, Told(away=away, failed=lease.warn))
    except grpc.aio.AioRpcError as error:
        raise failure(error, f"the VLM {name}") from error
    except VlmsFailed as error:
        raise JobRefused(f"{error} ({purpose})") from error
    except VlmLate as error:
        raise AttemptFailed(
            f"the VLM {name} gave no answer {purpose} in time, {MOST_LATE} times in a row"
        ) from error
    if waits:
        await lease.waits_for(None)
    return answer
