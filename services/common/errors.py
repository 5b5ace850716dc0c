"""What a GPU service refuses or breaks on, and the gRPC status each becomes."""

from __future__ import annotations

import grpc

from dualprocess.errors import TensorError


class InvalidInput(ValueError):
    """The caller's mistake. The sentence names the field and the remedy."""


class NonFinite(ArithmeticError):
    """An image, loss or gradient came out as NaN or infinity: the step can't be used."""


class BadGradient(RuntimeError):
    """A gradient came back that doesn't belong to the images that went out."""


class BadCheckpoint(ValueError):
    """A checkpoint that the job can't go on from; an older one may do."""


class OutOfDeviceMemory(RuntimeError):
    """The device has too little memory for this call; smaller ones still work."""


STATUS_OF: dict[type[BaseException], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    TensorError: grpc.StatusCode.INVALID_ARGUMENT,
    BadCheckpoint: grpc.StatusCode.FAILED_PRECONDITION,
    NonFinite: grpc.StatusCode.DATA_LOSS,
    BadGradient: grpc.StatusCode.DATA_LOSS,
    OutOfDeviceMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
