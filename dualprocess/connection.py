"""What a client needs to connect: address, key, proxies and certificates."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx

from dualprocess import urls
from dualprocess.errors import InvalidSetup


def service_url(url: str) -> str:
    """The address without a slash at its end. Raises ``InvalidSetup`` if it can't be a service's
    address."""
    address = url.strip().rstrip("/")
    fault = (
        "must begin with http:// or https://, followed by a host, with or without a port and a "
        "path, like http://127.0.0.1:8000"
    )
    try:
        parsed = urls.parsed(address)
    except ValueError as error:
        # The scheme is right, so something else is wrong.
        if address.startswith(("http://", "https://")):
            fault = str(error)
    else:
        # An @ in the path means that the address has a password with a /, which ended the host too
        # early.
        if parsed.scheme in ("http", "https") and parsed.host and "@" not in parsed.path:
            return address
    raise InvalidSetup(f"{shown(url)} is no address of a service: it {fault}")


def shown(url: str) -> str:
    """The address as messages show it: without user and password, whatever characters they have."""
    scheme, found, rest = url.partition("://")
    if not found:
        return url.rpartition("@")[2]
    return f"{scheme}://{rest.rpartition('@')[2]}"


def bearer(key: str | None) -> dict[str, str]:
    """The header with ``key``, if there is one. Raises ``InvalidSetup`` for a key that no header
    can carry; the message never repeats the key."""
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
    """The transport for a ``url`` on this machine, which uses no proxy. ``None`` for other
    addresses: httpx then uses the proxies of the environment."""
    return httpx.HTTPTransport(verify=certificates(url)) if _is_here(url) else None


def async_transport(url: str) -> httpx.AsyncHTTPTransport | None:
    """``transport``, for an asynchronous client."""
    return httpx.AsyncHTTPTransport(verify=certificates(url)) if _is_here(url) else None


def certificates(url: str | None = None) -> ssl.SSLContext:
    """httpx's TLS settings, with the authorities of ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` if the
    environment has one; not for a plain ``url`` on this machine. One for all clients: reading the
    authorities takes longer than most requests."""
    trust_env = url is None or _has_tls(url) or not _is_here(url)
    return _certificates(trust_env, *map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))


@cache
def _certificates(trust_env: bool, _file: str | None, _folder: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=trust_env)


def _is_here(url: str) -> bool:
    host = httpx.URL(url).host
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # The address 0.0.0.0 or [::] reaches this machine.
    return address.is_loopback or address.is_unspecified


def _has_tls(url: str) -> bool:
    return httpx.URL(url).scheme == "https"


@contextmanager
def setting_up() -> Iterator[None]:
    """Raises ``InvalidSetup`` if the environment does not allow a client to be made."""
    try:
        yield
    except ImportError:
        raise InvalidSetup(
            "ALL_PROXY, HTTP_PROXY or HTTPS_PROXY names a SOCKS proxy, which needs another "
            "package: pip install 'httpx[socks]', unset the variable, or name the service's host "
            "in NO_PROXY"
        ) from None
    except (OSError, ValueError, httpx.InvalidURL):
        # Without the cause: it repeats the proxy's address, with its password.
        raise InvalidSetup(
            certificates_fault()
            or "ALL_PROXY, HTTP_PROXY or HTTPS_PROXY is no address of a proxy; write it like "
            "http://proxy:3128, or unset it"
        ) from None


def certificates_fault() -> str | None:
    """Why no TLS connection can be made in this environment, with the remedy; ``None`` if one
    can."""
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
