"""The visitor of the page. The REST API knows them by the key that let them in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import gradio as gr
import httpx

from dualprocess import AsyncClient
from services.orchestrator.ui.faults import EXPECTED, faults_of


def connected(request: gr.Request) -> AsyncClient:
    """A client of this service's own REST API with the visitor's key, and with no other."""
    # The server's own address, and not the Host header, which the visitor can choose.
    asked = request.request
    assert asked is not None
    host, port = asked.scope["server"]
    host = f"[{host}]" if ":" in host else host
    key = asked.state.caller.key or ""
    # The address is this process itself, so no proxy is used. The key must not be empty, or the
    # client would take the one in this process's environment.
    return AsyncClient(
        f"http://{host}:{port}", key or " ", transport=httpx.AsyncHTTPTransport(trust_env=False)
    )


@asynccontextmanager
async def visiting(request: gr.Request) -> AsyncIterator[AsyncClient]:
    """The same for actions without fields: an error becomes a message on the page."""
    try:
        async with connected(request) as client:
            yield client
    except EXPECTED as error:
        raise gr.Error(faults_of(error)["title"], print_exception=False) from error
