"""Conditional requests (RFC 9110, 13) for a file that never changes."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

_TAG = re.compile(r'(?:W/)?"[^"]*"')


def is_known(headers: Headers, etag: str) -> bool:
    """Whether the caller already has the file, by ``If-None-Match``: the answer is 304."""
    return _names(headers, "if-none-match", etag, weakly=True)


def is_another(headers: Headers, etag: str) -> bool:
    """Whether the caller wants only a different file, by ``If-Match``: the answer is 412."""
    return "if-match" in headers and not _names(headers, "if-match", etag, weakly=False)


def wants_range(headers: Headers, etag: str) -> bool:
    """Whether ``Range`` applies, by ``If-Range``. A date never matches, since files here have
    none."""
    return headers.get("if-range", etag).strip() == etag


def _names(headers: Headers, name: str, etag: str, *, weakly: bool) -> bool:
    listed = ",".join(headers.getlist(name))
    if listed.strip() == "*":
        return True
    tags = _TAG.findall(listed)
    return etag in ([tag.removeprefix("W/") for tag in tags] if weakly else tags)
