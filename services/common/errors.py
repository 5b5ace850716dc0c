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
    """The device broke. It says nothing against the call, and nothing more can be done here."""


class VlmsFailed(RuntimeError):
    """Two replicas of a VLM failed the same call, or the only one there is did so twice."""


class VlmLate(RuntimeError):
    """A VLM gave no answer in time, again and again."""


class VlmRefused(RuntimeError):
    """A VLM gave a status that says nothing of the call itself, as for a wrong token."""


class ServiceEnds(RuntimeError):
    """The service takes no more calls, and ends those in hand; another one may do them."""


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
