"""HTTP/1.1 with a limit to a request's address and headers."""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import H11Protocol

#: The most bytes of an incomplete address and headers that are kept.
MAX_HEAD = 32 * 1024


class BoundedHead(H11Protocol):
    """h11 limits only what is incomplete when it gets data, so it gets the data in small pieces."""

    def data_received(self, data: bytes) -> None:
        for begin in range(0, len(data), MAX_HEAD):
            if self.transport.is_closing():
                return
            super().data_received(data[begin : begin + MAX_HEAD])
