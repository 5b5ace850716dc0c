"""Conditional requests (RFC 9110, 13) for a file that never changes."""

from __future__ import annotations

import re

from starlette.datastructures import Headers

_TAG = re.compile(r'(?:W/)?"[^"]*"')


def is_known(headers: Headers, etag: str) -> bool:
    """Whether who asks has the file, by ``If-None-Match``: an answer of 304 is enough."""
    return _names(headers, "if-none-match", etag, weakly=True)


def is_another(headers: Headers, etag: str) -> bool:
    """Whether only another file is wanted, by ``If-Match``: the answer is 412."""
    return "if-match" in headers and not _names(headers, "if-match", etag, weakly=False)


def wants_range(headers: Headers, etag: str) -> bool:
    """Whether a ``Range`` holds, by ``If-Range``. Nothing here has a date: another file's."""
    return headers.get("if-range", etag).strip() == etag


def _names(headers: Headers, name: str, etag: str, *, weakly: bool) -> bool:
    listed = ",".join(headers.getlist(name))
    if listed.strip() == "*":
        return True
    tags = _TAG.findall(listed)
    return etag in ([tag.removeprefix("W/") for tag in tags] if weakly else tags)
