"""``dualprocess mcp``: the service as tools for agents."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from dualprocess.cli.session import BAD_INPUT, ApiKey, Url, connected, fail, note
from dualprocess.connection import service_url, shown
from dualprocess.errors import Unauthorized
from dualprocess.protocol import DEFAULT_URL

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    app.command()(mcp)


def mcp(
    http: Annotated[
        bool, typer.Option("--http", help="Serve over HTTP, at /mcp, instead of stdin and stdout.")
    ] = False,
    host: Annotated[str, typer.Option(help="With --http: address on which it listens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="With --http: port on which it listens.")
    ] = 8008,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
) -> None:
    """Serve tools for agents, over the Model Context Protocol.

    They teach, follow, stop, draw, score and ask, as the service at --url allows it. Over stdin and
    stdout there is one key, --api-key. With --http each request brings its own, as Authorization:
    Bearer.
    """
    if find_spec("mcp") is None:
        fail("the MCP SDK is not installed here: pip install 'dualprocess[mcp]'", BAD_INPUT)
    with connected(url, api_key):
        address = service_url(url)
    # Imported here: the SDK is an extra, and takes a second.
    from dualprocess.mcp import server

    if not http:
        server.serve_stdio(address, api_key)
        return
    if api_key:
        note("the key of this process is not used: over HTTP each request brings its own")
    if host not in _LOOPBACK:
        _need_keys(address)
    name = f"[{host}]" if ":" in host else host
    note(f"tools for agents are at http://{name}:{port}{server.PATH}")
    server.serve_http(address, host=host, port=port)


def _need_keys(url: str) -> None:
    """Ends the command if others could use a service through it that has no keys."""
    with connected(url, "") as stranger:
        try:
            stranger.models()
        except Unauthorized:
            return
    fail(
        f"the service at {shown(url)} asks for no API keys, so --host would let other machines "
        "use it: start the service with --auth, or leave --host out",
        BAD_INPUT,
    )
