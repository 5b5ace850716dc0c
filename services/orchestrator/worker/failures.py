"""Which ends of an attempt say something against the job, and which are worth another try."""

from __future__ import annotations

import grpc


class JobRefused(Exception):
    """The job can't succeed as it is: another attempt would end the same way."""


class JobStopped(Exception):
    """A cancel is wanted, and what the job waits for is away: it ends with what it has."""


#: A service said that the request itself is wrong, or came out as NaN: deterministic, so final.
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
)


def cause_of(error: grpc.aio.AioRpcError, who: str) -> str:
    """A sentence for a person. Raises ``JobRefused`` with it where no other attempt can help."""
    sentence = f"{who}: {error.details() or error.code().name}"
    if error.code() in _FINAL:
        raise JobRefused(sentence) from error
    return sentence
