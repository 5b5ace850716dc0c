"""What a client's connections are made with: address, key, proxies and certificates."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from dualprocess import urls
from dualprocess.errors import InvalidSetup


def service_url(url: str) -> str:
    """The address without a slash at its end. Raises ``InvalidSetup`` for none of a service."""
    address = url.strip().rstrip("/")
    fault = (
        "must begin with http:// or https://, then a host and perhaps a port and a path, like "
        "http://127.0.0.1:8000"
    )
    try:
        parsed = urls.parsed(address)
    except ValueError as error:
        # With a scheme it is the rest that is wrong.
        if address.startswith(("http://", "https://")):
            fault = str(error)
    else:
        # An @ in the path was meant to end a password, whose own / ended the host.
        if parsed.scheme in ("http", "https") and parsed.host and "@" not in parsed.path:
            return address
    raise InvalidSetup(f"{shown(url)} is no address of a service: it {fault}")


def shown(url: str) -> str:
    """The address for a message: without user and password, whatever characters are in them."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url.rpartition("@")[2]
    return f"{scheme}://{rest.rpartition('@')[2]}"


def bearer(key: str | None) -> dict[str, str]:
    """The header that carries ``key``, if there is one. Raises ``InvalidSetup`` for what no header
    can carry, and never repeats it."""
    key = (key or "").strip()
    if not key:
        return {}
    if not (key.isascii() and key.isprintable()):
        raise InvalidSetup(
            "the API key has a line break or another character that can't be sent; it is one line, "
            "like dp_…"
        )
    return {"Authorization": f"Bearer {key}"}


def transport(url: str) -> httpx.HTTPTransport | None:
    """Of a client of ``url`` on this machine: no proxy is asked for it. ``None`` elsewhere: httpx's
    own, with the proxies of the environment."""
    return httpx.HTTPTransport(trust_env=_has_tls(url)) if _is_here(url) else None


def async_transport(url: str) -> httpx.AsyncHTTPTransport | None:
    """``transport``, for an asynchronous client."""
    return httpx.AsyncHTTPTransport(trust_env=_has_tls(url)) if _is_here(url) else None


def _is_here(url: str) -> bool:
    host = httpx.URL(url).host
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # What listens on every address is reached by none as well: on this machine.
    return address.is_loopback or address.is_unspecified


def _has_tls(url: str) -> bool:
    return httpx.URL(url).scheme == "https"


@contextmanager
def setting_up() -> Iterator[None]:
    """Raises ``InvalidSetup`` for an environment that no client can be made in."""
    try:
        yield
    except ImportError:
        raise InvalidSetup(
            "ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names a SOCKS proxy, which needs a package more: "
            "pip install 'httpx[socks]', unset the variable, or name the service's host in NO_PROXY"
        ) from None
    except (OSError, ValueError, httpx.InvalidURL):
        # Not the cause: it repeats a proxy's address, with its password.
        raise InvalidSetup(
            certificates_fault()
            or "ALL_PROXY, HTTP_PROXY or HTTPS_PROXY is no address of a proxy; write it like "
            "http://proxy:3128, or unset it"
        ) from None


def certificates_fault() -> str | None:
    """Why no TLS connection can be made in this environment, with the remedy; else ``None``."""
    name = os.environ.get("SSL_CERT_FILE")
    if not name:
        return None
    if not Path(name).is_file():
        return f"SSL_CERT_FILE names no file: {name}; unset it, or name a PEM file of certificates"
    try:
        ssl.create_default_context(cafile=name)
    except (OSError, ssl.SSLError):
        return f"SSL_CERT_FILE holds no PEM certificates: {name}; unset it, or name another"
    return None
