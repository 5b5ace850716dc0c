"""Whose fault a failed call was. A GPU service says so in trailing metadata, besides the status.

A caller that does not read it still has the status and its sentence.
"""

from __future__ import annotations

import grpc
from grpc.aio import Metadata

#: The device on which the call failed.
_DEVICE = "dualprocess-device"
#: The service ended the call for its own reasons; the call itself was not the cause.
_SPARED = "dualprocess-spared"


def by_device(identity: str) -> tuple[tuple[str, str], ...]:
    return ((_DEVICE, identity),)


def by_nobody() -> tuple[tuple[str, str], ...]:
    return ((_SPARED, "1"),)


def failed_device(error: grpc.aio.AioRpcError, otherwise: str) -> str:
    """The device on which the call failed; ``otherwise`` if the answer names none."""
    return _read(error, _DEVICE) or otherwise


def is_spared(error: grpc.aio.AioRpcError) -> bool:
    """Whether the service ended the call for its own reasons."""
    return _read(error, _SPARED) is not None


def _read(error: grpc.aio.AioRpcError, key: str) -> str | None:
    value = Metadata(*(error.trailing_metadata() or ())).get(key)
    return value.decode() if isinstance(value, bytes) else value
