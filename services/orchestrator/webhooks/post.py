"""One POST to an address that an untrusted user chose."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore
import httpx

from dualprocess.connection import certificates
from services.orchestrator.webhooks.addresses import AddressPolicy, AddressRefused

#: For everything: name, connection, TLS, answer.
POST_SECONDS = 10.0
_CONNECT_SECONDS = 4.0
#: Bytes of an answer that are read. Nobody uses them, but the receiver's connection should not
#: break.
_BODY_BYTES = 64 * 1024


class NotDelivered(Exception):
    """The receiver did not accept the message; the error says why. ``gone``: it never will."""

    def __init__(self, message: str, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class Poster:
    """Connects only to checked addresses, follows no redirect, uses no proxy, keeps no answer."""

    def __init__(self, policy: AddressPolicy, *, tls: ssl.SSLContext | None = None) -> None:
        self._policy = policy
        self._tls = tls or certificates()

    async def post(self, address: str, headers: Mapping[str, str], body: bytes) -> None:
        """Returns once the receiver answered 2xx. Raises ``NotDelivered``."""
        try:
            async with asyncio.timeout(POST_SECONDS):
                status = await self._post(self._policy.parsed(address), headers, body)
        except AddressRefused as error:
            raise NotDelivered(f"the address {error}") from error
        except TimeoutError as error:
            raise NotDelivered(f"no answer within {POST_SECONDS:.0f} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            what = "a redirect, which is not followed" if 300 <= status < 400 else "not 2xx"
            raise NotDelivered(f"the answer was {status}: {what}", gone=status == 410)

    async def _post(self, url: httpx.URL, headers: Mapping[str, str], body: bytes) -> int:
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        backend = _CheckedBackend(self._policy, url.scheme)
        async with (
            httpcore.AsyncConnectionPool(self._tls, network_backend=backend) as pool,
            pool.stream(
                "POST",
                target,
                # httpx writes brackets and a port where they belong; httpcore does not.
                headers=[(b"Host", url.netloc), *headers.items()],
                content=body,
            ) as response,
        ):
            read = 0
            async for piece in response.aiter_stream():
                read += len(piece)
                if read > _BODY_BYTES:
                    break
            return response.status


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves and checks as the connection is made, so that nothing can change in between.

    TLS above it still asks for the host by its name.
    """

    def __init__(self, policy: AddressPolicy, scheme: str) -> None:
        self._policy = policy
        self._scheme = scheme
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in await self._policy.addresses(host, port, scheme=self._scheme):
            try:
                return await self._backend.connect_tcp(
                    address, port, _CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
