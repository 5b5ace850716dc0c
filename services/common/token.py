"""The shared token of a site: sent with every call, checked by every GPU service."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata

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


def senders(token: str) -> Sequence[grpc.aio.ClientInterceptor]:
    """Call credentials that send the token with every call."""
    return (_UnarySender(token), _StreamSender(token))


class _Sender:
    def __init__(self, token: str) -> None:
        self._value = _value(token)

    def _signed(self, details: ClientCallDetails) -> ClientCallDetails:
        metadata = Metadata(*(details.metadata or ()))
        metadata.add(_HEADER, self._value)
        return ClientCallDetails(
            method=details.method,
            timeout=details.timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _UnarySender(_Sender, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: ClientCallDetails, request: Any
    ) -> Any:
        return await continuation(self._signed(client_call_details), request)


class _StreamSender(_Sender, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(self._signed(client_call_details), request_iterator)


def _value(token: str) -> str:
    return f"Bearer {token}"
