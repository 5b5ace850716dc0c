"""The shared token of a site: sent with every call, checked by every GPU service."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

_HEADER = "authorization"
#: These are answered without a token, so that a container runtime can check whether the service
#: lives.
_OPEN_SERVICES = ("/grpc.health.",)


class TokenDoor(grpc.aio.ServerInterceptor):
    """``UNAUTHENTICATED`` for a call without the token, before its messages are read."""

    def __init__(self, token: str) -> None:
        self._expected = _value(token).encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        if handler_call_details.method.startswith(_OPEN_SERVICES):
            return await continuation(handler_call_details)
        sent = [
            value if isinstance(value, bytes) else value.encode()
            for name, value in handler_call_details.invocation_metadata or ()
            if name == _HEADER
        ]
        # In constant time, so that the time of a refusal does not show how much of the token was
        # right.
        if len(sent) == 1 and hmac.compare_digest(sent[0], self._expected):
            return await continuation(handler_call_details)
        fault = "has a wrong token" if sent else "has no token"
        return grpc.stream_stream_rpc_method_handler(_refusing(fault))


def _refusing(fault: str) -> Any:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED,
            f"the call {fault}: set the same DUALPROCESS_GRPC_TOKEN for caller and service",
        )

    return refuse


def token_metadata(token: str) -> list[tuple[str, str]]:
    """What a call sends to be let in."""
    return [(_HEADER, _value(token))]


def _value(token: str) -> str:
    return f"Bearer {token}"
