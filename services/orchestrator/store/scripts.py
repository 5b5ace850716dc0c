"""The Lua scripts beside this file. Each sees the functions of ``indexes.lua`` and
``enqueue.lua``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from services.orchestrator.store.redis import Client

Script = Callable[..., Awaitable[Any]]


def script(redis: Client, name: str) -> Script:
    """``name.lua``, called with ``keys`` and ``args``."""
    source = "".join(_source(part) for part in ("indexes", "enqueue", name))
    registered: Script = redis.register_script(source)
    return registered


def _source(name: str) -> str:
    return files("services.orchestrator.store").joinpath(f"{name}.lua").read_text(encoding="utf-8")
