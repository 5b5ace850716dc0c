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
}
