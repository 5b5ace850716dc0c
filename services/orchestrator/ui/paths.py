"""Which paths of the page are public, and which need an API key if the service asks for one."""

from __future__ import annotations

import re

ROOT = "/ui"

#: The cookie with the visitor's API key. The browser sends it only to the page's own paths.
KEY_COOKIE = "dualprocess_key"

#: The page itself. It is the same for everybody, and contains no job.
_STATIC = re.compile(
    rf"{ROOT}(/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/assets/.*|/static/.*"
    r"|/gradio_api/(startup-events|theme\.css|app_id))?"
)
#: Which Gradio routes exist. Gradio has more, to upload files or to fetch from other sites; the
#: page does not need them, so they are closed.
_WORK = re.compile(
    rf"{ROOT}/gradio_api/(queue/join|queue/data|cancel|reset|heartbeat/[A-Za-z0-9]{{1,64}})/?"
)


#: The routes whose answers are streams, which last as long as the page works or is open.
_STREAM = re.compile(rf"{ROOT}/gradio_api/(queue/data|heartbeat/[^/]+)/?")


def is_page(path: str) -> bool:
    """Whether this path belongs to the page."""
    return path == ROOT or path.startswith(f"{ROOT}/")


def is_static(method: str, path: str) -> bool:
    return method in ("GET", "HEAD") and _STATIC.fullmatch(path) is not None


def is_work(path: str) -> bool:
    return _WORK.fullmatch(path) is not None


def is_stream(path: str) -> bool:
    return _STREAM.fullmatch(path) is not None
