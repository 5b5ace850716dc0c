"""HTTP/1.1 as the API's server reads it: with a limit to what comes before a body."""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Bytes of a request's address and headers that are waited for.
MAX_HEAD = 32 * 1024


class BoundedHead(H11Protocol):
    """h11 has a limit to what is not whole yet, and takes whatever is: so it gets pieces."""

    def data_received(self, data: bytes) -> None:
        for begin in range(0, len(data), MAX_HEAD):
            if self.transport.is_closing():
                return
            super().data_received(data[begin : begin + MAX_HEAD])
