"""The OpenAPI document: FastAPI's, with the real errors and keys, the events, and example
bodies."""

from __future__ import annotations

import asyncio
import functools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi.utils import generate_unique_id
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path

from dualprocess.schemas import Event

_SPEC = {
    "prompt": "a circle",
    "questions": [{"question": "Is the circle red?", "answer": "Yes"}],
    "question_postfix": "Answer with Yes or No.",
    "generator": "tiny-flux",
    "vlm": "tiny-idefics2",
}
#: A red square.
_PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mP8z0AaYGIY1TCqYdhqAABALgEfFO4+"
    "AgAAAABJRU5ErkJggg=="
)
#: Example bodies by path. They work with the tiny pair; writing needs a larger VLM.
_EXAMPLES: dict[str, dict[str, Any]] = {
    "/v1/jobs": _SPEC,
    "/v1/batches": {"specs": [_SPEC, _SPEC | {"prompt": "a square"}]},
    "/v1/images": {"prompt": "a circle", "generator": "tiny-flux", "seeds": [1, 2]},
    "/v1/questions": {"prompt": "a fox in the snow", "count": 3, "vlm": "qwen2.5-vl"},
    "/v1/prompts/expand": {"prompt": "a fox in the snow", "vlm": "qwen2.5-vl"},
    "/v1/answers": {
        "image": _PICTURE,
        "questions": ["Describe the image."],
        "vlm": "tiny-idefics2",
    },
}
#: What FastAPI is told of the document. Its server is relative to the document, so that it is right
#: behind every proxy.
ABOUT: dict[str, Any] = {
    "title": "dualprocess",
    "summary": "A VLM's answers teach an image generator through a LoRA.",
    "description": "Jobs teach a generator a LoRA; their events are a stream, and their results "
    "are files. Images and words are jobs as well, which a request can wait for. Errors are "
    "problems (RFC 9457) that name the field and what to write instead. A request that makes "
    "models compute can be tried with `dry_run=true`.",
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    "servers": [{"url": ".", "description": "The folder of this document."}],
    "openapi_tags": [
        {"name": "jobs", "description": "Teach a generator: submit, follow, stop, delete."},
        {"name": "batches", "description": "Many jobs with one request."},
        {"name": "artifacts", "description": "The files of a job."},
        {"name": "images", "description": "Images from a prompt, with LoRAs and scores."},
        {"name": "words", "description": "Questions, prompts and answers that a VLM writes."},
        {"name": "models", "description": "What a job can name."},
        {"name": "health", "description": "For what watches the service."},
    ],
}
#: What clients that are generated from the document call each operation.
_NAMES: Mapping[tuple[str, str], str] = {
    ("POST", "/v1/jobs"): "submit_job",
    ("GET", "/v1/jobs"): "list_jobs",
    ("GET", "/v1/jobs/{job_id}"): "read_job",
    ("DELETE", "/v1/jobs/{job_id}"): "delete_job",
    ("POST", "/v1/jobs/{job_id}/cancel"): "cancel_job",
    ("GET", "/v1/jobs/{job_id}/events"): "follow_job",
    ("GET", "/v1/jobs/{job_id}/artifacts/{name}"): "read_artifact",
    ("HEAD", "/v1/jobs/{job_id}/artifacts/{name}"): "describe_artifact",
    ("POST", "/v1/batches"): "submit_batch",
    ("GET", "/v1/batches/{batch_id}"): "read_batch",
    ("GET", "/v1/batches/{batch_id}/jobs"): "list_batch_jobs",
    ("POST", "/v1/batches/{batch_id}/cancel"): "cancel_batch",
    ("POST", "/v1/images"): "generate_images",
    ("POST", "/v1/questions"): "write_questions",
    ("POST", "/v1/prompts/expand"): "expand_prompt",
    ("POST", "/v1/answers"): "answer_questions",
    ("GET", "/v1/models"): "list_models",
    ("GET", "/healthz"): "check_alive",
    ("GET", "/readyz"): "check_ready",
    ("GET", "/metrics"): "read_metrics",
    ("GET", "/v1/version"): "read_version",
}
_REF = "#/components/schemas/{model}"
#: The schema of a server-sent event's `data`.
_EVENTS: tuple[type[BaseModel], ...] = get_args(get_args(Event)[0])
_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


def operation_id(route: APIRoute) -> str:
    """The name of a route's operation, for ``FastAPI``."""
    method = min(route.methods or ())
    return _NAMES.get((method, route.path_format)) or generate_unique_id(route)


def install(app: FastAPI, *, auth: bool) -> None:
    """Documents errors with their real media type, and keys only if the service needs them."""
    plain, one_makes_it = app.openapi, threading.Lock()

    def document() -> dict[str, Any]:
        with one_makes_it:
            return made()

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = plain()
            for path, example in _EXAMPLES.items():
                body = described["paths"][path]["post"]["requestBody"]["content"]
                body["application/json"]["examples"] = {"small": {"value": example}}
            _describe_events(described)
            _leave_out_empty_defaults(described)
            for operation in _operations(described):
                for status, response in operation["responses"].items():
                    if status in ("4XX", "5XX"):
                        response["content"] = {"application/problem+json": _PROBLEM}
                if not auth:
                    operation.pop("security", None)
            if not auth:
                described["components"].pop("securitySchemes", None)
            # What holds where an operation says nothing else: no key.
            described["security"] = []
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    (route,) = [one for one in app.routes if isinstance(one, Route) and one.path == app.openapi_url]
    serve = route.endpoint

    async def made_beside(request: Request) -> Response:
        # It takes longer than others can wait.
        await asyncio.to_thread(document)
        answer: Response = await serve(request)
        return answer

    app.routes.remove(route)
    app.add_route(route.path, made_beside, include_in_schema=False)


def list_routes(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """For ``template_at``: the document itself takes too long to make while somebody waits."""
    routes = [route for router in routers for route in router.routes]
    paths = [route.path for route in routes if isinstance(route, Route)]
    app.state.templates = list(dict.fromkeys(paths))


def template_at(app: FastAPI, path: str) -> str | None:
    """The documented path that this one is an instance of, like ``/v1/jobs/{job_id}``."""
    templates: list[str] = app.state.templates
    return next((one for one in templates if _pattern(one).match(path)), None)


def methods_at(app: FastAPI, path: str) -> list[str]:
    """The methods of the documented path that this one is an instance of; empty without one."""
    return [
        method.upper()
        for template, operations in app.openapi()["paths"].items()
        for method in operations
        if _pattern(template).match(path)
    ]


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template)[0]


def _describe_events(described: dict[str, Any]) -> None:
    """Describes the events of a stream; FastAPI knows only that it is one."""
    _, defined = models_json_schema(
        [(event, "serialization") for event in _EVENTS], ref_template=_REF
    )
    described["components"]["schemas"] = defined["$defs"] | described["components"]["schemas"]
    for operation in _operations(described):
        content = operation["responses"].get("200", {}).get("content", {})
        if "text/event-stream" in content:
            refs = [{"$ref": _REF.format(model=event.__name__)} for event in _EVENTS]
            data = {
                "type": "string",
                "contentMediaType": "application/json",
                "contentSchema": {"oneOf": refs},
            }
            # The fields of the format that are used; `retry` is not.
            text = {"type": "string"}
            properties = {"data": data, "event": text, "id": text}
            # OpenAPI 3.1 has no word for the items of a stream. Its readers take the schema of a
            # stream for that of each event.
            content["text/event-stream"] = {
                "schema": {
                    "type": "object",
                    "description": "One event of the stream.",
                    "properties": properties,
                }
            }


def _leave_out_empty_defaults(described: dict[str, Any]) -> None:
    """Empty objects as defaults say no more than that the field may be left out, and generators of
    clients stumble over them where the field may also be a word."""
    for schema in described["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            if field.get("default") == {}:
                del field["default"]


def _operations(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in described["paths"].values():
        yield from path.values()
