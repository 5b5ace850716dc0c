"""The errors of a GPU service, each with its gRPC status, and the error that keeps it from
starting."""

from __future__ import annotations

import grpc

from dualprocess.errors import TensorError


class InvalidInput(ValueError):
    """The caller's mistake. The message names the field and the remedy."""


class NonFinite(ArithmeticError):
    """An image, loss or gradient is NaN or infinite: the step can't be used."""


class BadGradient(RuntimeError):
    """The returned gradient does not fit the images that were sent."""


class BadCheckpoint(ValueError):
    """The job can't go on from this checkpoint; it may from an older one."""


class OutOfDeviceMemory(RuntimeError):
    """The device has too little memory for this call; smaller calls still work."""


class DeviceFault(RuntimeError):
    """The device broke. The call was not the cause, and this process can't use the device any
    more."""


class VlmsFailed(RuntimeError):
    """Two replicas of a VLM failed the same call, or the only one failed it twice."""


class VlmLate(RuntimeError):
    """A VLM did not answer in time, several times in a row."""


class VlmRefused(RuntimeError):
    """A VLM answered with a status that has nothing to do with the call, as for a wrong token."""


class ServiceEnds(RuntimeError):
    """The service stops: it accepts no calls, and ends running ones. Another service may do
    them."""


class StartError(RuntimeError):
    """The reason why a service can't start, on one line, even if a library's message has
    several."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.split()))


STATUS_OF: dict[type[BaseException], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    TensorError: grpc.StatusCode.INVALID_ARGUMENT,
    BadCheckpoint: grpc.StatusCode.FAILED_PRECONDITION,
    NonFinite: grpc.StatusCode.DATA_LOSS,
    BadGradient: grpc.StatusCode.DATA_LOSS,
    OutOfDeviceMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ServiceEnds: grpc.StatusCode.UNAVAILABLE,
    VlmsFailed: grpc.StatusCode.ABORTED,
    VlmLate: grpc.StatusCode.DEADLINE_EXCEEDED,
    VlmRefused: grpc.StatusCode.UNKNOWN,
}
