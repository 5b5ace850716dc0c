"""An environment whose proxies lead nowhere, as a company's do for addresses of one machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def leading_nowhere() -> Iterator[dict[str, str]]:
    """The environment of this process, with such proxies."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # One accepts connections and never answers, the others refuse them.
        proxies = dict.fromkeys(
            ("http_proxy", "HTTPS_PROXY", "grpc_proxy"),
            f"http://127.0.0.1:{silent.getsockname()[1]}",
        )
        proxies |= dict.fromkeys(("https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
        kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        yield kept | proxies
