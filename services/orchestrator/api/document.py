"""The OpenAPI document, as true as FastAPI's and in two points truer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


def install(app: FastAPI, *, auth: bool) -> None:
    """Errors are documented in the media type they have, and keys only where they are asked for."""
    plain = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = plain()
            for operation in _operations(described):
                for status, response in operation["responses"].items():
                    if status in ("4XX", "5XX"):
                        response["content"] = {"application/problem+json": _PROBLEM}
                if not auth:
                    operation.pop("security", None)
            if not auth:
                described["components"].pop("securitySchemes", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _operations(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in described["paths"].values():
        yield from path.values()
