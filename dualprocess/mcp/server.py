"""The server with its tools, over standard input and output, or over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from dualprocess.async_client import AsyncClient
from dualprocess.connection import shown
from dualprocess.mcp.tools import AnyContext, Connect, Tools

#: Where it is served over HTTP.
PATH = "/mcp"
#: Of one request: a picture of 10 MiB in base64 fits.
_BODY_BYTES = 16 << 20
_INSTRUCTIONS = """\
Teaches image generators with the answers of vision-language models (VLMs), and gives out LoRAs.
First `score` what the base model does; if the right answers are already likely, nothing has to be \
taught. Then `teach`, and `follow` the job until it ends. `draw` with `loras` shows the result. \
Write questions whose right answer is a word like Yes, about what can be seen."""


def serve_stdio(url: str, api_key: str | None) -> None:
    """Serves one client, with one key, until it closes the connection."""

    @asynccontextmanager
    async def connect(_: AnyContext) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(url, api_key) as client:
            yield client

    _server(url, connect).run("stdio")


def serve_http(url: str, *, host: str, port: int) -> None:
    """Serves any number of clients until it is interrupted. Each request is made with its own key,
    from its ``Authorization`` header, and never with one of this process."""

    @asynccontextmanager
    async def connect(ctx: AnyContext) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(url, _bearer(ctx)) as client:
            yield client

    # Without sessions there is nothing that another client could take over.
    app = _server(url, connect).streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        max_request_body_size=_BODY_BYTES,
        host=host,
    )
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _server(url: str, connect: Connect) -> MCPServer:
    server = MCPServer(
        "dualprocess",
        title="dualprocess",
        instructions=_INSTRUCTIONS,
        version=version("dualprocess"),
        log_level="WARNING",
    )
    for tool in Tools(shown(url), connect).all():
        server.add_tool(tool, structured_output=False)
    return server


def _bearer(ctx: AnyContext) -> str:
    """The request's key; an empty one for a service that needs none."""
    header = (ctx.headers or {}).get("authorization", "")
    scheme, _, key = header.partition(" ")
    if header and scheme.lower() != "bearer":
        raise ToolError("Authorization: must be Bearer and an API key, like Bearer dp_…")
    return key.strip()
