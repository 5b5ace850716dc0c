"""Who looks at the page, as the REST API will know them: by the key in their browser."""

from __future__ import annotations

from urllib.parse import unquote

import gradio as gr

from dualprocess import AsyncClient
from services.orchestrator.ui.paths import KEY_COOKIE


def connected(request: gr.Request) -> AsyncClient:
    """A client of this service's own REST API with the visitor's key, and with no other."""
    # Where the server listens, as it knows itself: a Host header is the visitor's to choose.
    host, port = request.request.scope["server"]
    host = f"[{host}]" if ":" in host else host
    key = unquote(request.request.cookies.get(KEY_COOKIE, ""))
    # Not empty: the client would take the key of this process's environment instead.
    return AsyncClient(f"http://{host}:{port}", key or " ")
