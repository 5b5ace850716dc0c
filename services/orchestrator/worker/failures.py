"""The ways in which an attempt can end: some count against the job, and after some it is tried
again."""

from __future__ import annotations

import grpc


class JobRefused(Exception):
    """The job can't succeed as it is: another attempt would end the same way."""


class JobStopped(Exception):
    """A cancel is wanted, and the job can do no more: it ends with what it has."""


class WorkerStopping(Exception):
    """The worker ends; another one takes its job."""


class AttemptFailed(Exception):
    """This attempt is over; the message says why. Another one may succeed."""


class GeneratorTroubled(AttemptFailed):
    """The generator died or ran out of memory; another job on it may have caused that."""


#: A service said that the request itself is wrong, or came out as NaN: deterministic, so final.
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
)


_TROUBLED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


def failure(error: grpc.aio.AioRpcError, who: str) -> AttemptFailed | JobRefused:
    """What a service's error means for the job, in a sentence that names the service."""
    return (JobRefused if error.code() in _FINAL else AttemptFailed)(_sentence(error, who))


def generators_failure(error: grpc.aio.AioRpcError, generator: str) -> AttemptFailed | JobRefused:
    """What the generator's error means for a job on it."""
    who = f"the generator {generator}"
    if error.code() in _TROUBLED:
        return GeneratorTroubled(_sentence(error, who))
    return failure(error, who)


def _sentence(error: grpc.aio.AioRpcError, who: str) -> str:
    return f"{who}: {error.details() or error.code().name}"
