"""A request's path as the routes know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def route_path(scope: Mapping[str, Any]) -> str:
    """Without the prefix that a proxy serves this service under."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
