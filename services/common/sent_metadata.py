"""What a channel adds to the metadata of every call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import grpc
from grpc.aio import ClientCallDetails, Metadata

#: Asked anew for each call.
Pairs = Callable[[], Iterable[tuple[str, str]]]


def senders(pairs: Pairs) -> Sequence[grpc.aio.ClientInterceptor]:
    """What a channel needs for that."""
    return (_UnarySender(pairs), _StreamSender(pairs))


class _Sender:
    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def _with_more(self, details: ClientCallDetails) -> ClientCallDetails:
        metadata = Metadata(*(details.metadata or ()))
        for name, value in self._pairs():
            metadata.add(name, value)
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
        return await continuation(self._with_more(client_call_details), request)


class _StreamSender(_Sender, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self, continuation: Any, client_call_details: ClientCallDetails, request_iterator: Any
    ) -> Any:
        return await continuation(self._with_more(client_call_details), request_iterator)
