"""The ways in which an attempt can end: some count against the job, and after some it is tried
again."""

from __future__ import annotations

import grpc

from services.common.blame import failed_device, is_spared


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


class ServiceEnded(AttemptFailed):
    """The generator ended for a reason that has nothing to do with the job."""


class DeviceFailed(AttemptFailed):
    """The job failed on the generator's device. Whether the job or the device was the cause,
    another device will show."""

    def __init__(self, sentence: str, device: str) -> None:
        super().__init__(sentence)
        self.device = device


#: A service said that the request itself is wrong, or came out as NaN: deterministic, so final.
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.DATA_LOSS,
    # Two VLMs failed the same call.
    grpc.StatusCode.ABORTED,
)


_TROUBLED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


def failure(error: grpc.aio.AioRpcError, who: str) -> AttemptFailed | JobRefused:
    """What a service's error means for the job, in a sentence that names the service."""
    return (JobRefused if error.code() in _FINAL else AttemptFailed)(_sentence(error, who))


def generators_failure(
    error: grpc.aio.AioRpcError, generator: str, device: str
) -> AttemptFailed | JobRefused:
    """The failure of a job that the generator's error means. ``device`` is the name of its device,
    if the error names none."""
    who = f"the generator {generator}"
    if is_spared(error):
        return ServiceEnded(_sentence(error, who))
    if error.code() is grpc.StatusCode.INTERNAL:
        return DeviceFailed(_sentence(error, who), failed_device(error, device))
    if error.code() in _TROUBLED:
        return GeneratorTroubled(_sentence(error, who))
    return failure(error, who)


def _sentence(error: grpc.aio.AioRpcError, who: str) -> str:
    return f"{who}: {error.details() or error.code().name}"
