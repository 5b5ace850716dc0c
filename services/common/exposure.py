"""Checks who can reach a server, and whether callers must prove who they are."""

from __future__ import annotations

import ipaddress

from services.common.credentials import Credentials


def exposure_fault(host: str, *, auth: bool, insecure: bool) -> str | None:
    """Why the API must not listen on ``host`` like this, with the remedies; ``None`` if it may."""
    if auth or insecure or _is_loopback(host):
        return None
    return (
        f"--host {host} is open to other machines, and no API keys are asked for: add --auth and "
        "make keys with `dualprocess keys create`, or add --insecure if everyone who can reach "
        "this address may do everything"
    )


def grpc_exposure_fault(host: str, credentials: Credentials, *, insecure: bool) -> str | None:
    """The same for a GPU service."""
    if credentials.asks_who or insecure or _is_loopback(host):
        return None
    return (
        f"--host {host} is open to other machines, and callers need no token or certificate: set "
        "DUALPROCESS_GRPC_TOKEN for this service and for its callers, or give --tls-cert, "
        "--tls-key and --tls-ca, or add --insecure if everyone who can reach this address may do "
        "everything"
    )


def _is_loopback(host: str) -> bool:
    # Names are not looked up: another resolver may give another address later.
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
