"""Whose fault the end of a call is, as a GPU service says beside a status: in trailing metadata.

A caller that reads none of it still has the status and its sentence.
"""

from __future__ import annotations

import grpc
from grpc.aio import Metadata

#: The device that failed the call.
_DEVICE = "dualprocess-device"
#: The service ended the call for a reason of its own: nothing that the caller asked for made it.
_SPARED = "dualprocess-spared"


def by_device(identity: str) -> tuple[tuple[str, str], ...]:
    return ((_DEVICE, identity),)


def by_nobody() -> tuple[tuple[str, str], ...]:
    return ((_SPARED, "1"),)


def failed_device(error: grpc.aio.AioRpcError, otherwise: str) -> str:
    """The device that failed the call; ``otherwise`` where the answer names none."""
    return _read(error, _DEVICE) or otherwise


def is_spared(error: grpc.aio.AioRpcError) -> bool:
    """Whether the service ended the call for a reason of its own."""
    return _read(error, _SPARED) is not None


def _read(error: grpc.aio.AioRpcError, key: str) -> str | None:
    value = Metadata(*(error.trailing_metadata() or ())).get(key)
    return value.decode() if isinstance(value, bytes) else value
