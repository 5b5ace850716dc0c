"""What the tools answer: JSON with what matters of a job, and its pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, ContentBlock, ImageContent, TextContent
from pydantic import ValidationError

from dualprocess import printable
from dualprocess.errors import DualProcessError
from dualprocess.schemas import Job
from dualprocess.schemas.faults import MAX_FAULTS, field_errors

#: The fields of a job that an agent needs; its spec can be long, with drawings in it.
_TOLD = {
    "id",
    "kind",
    "status",
    "name",
    "generator",
    "vlms",
    "position",
    "waiting_for",
    "step",
    "steps",
    "loss",
    "probability",
    "scores",
    "warnings",
    "error",
    "stopped_because",
}


def result(fields: dict[str, Any], pictures: Sequence[bytes] = ()) -> CallToolResult:
    """``fields`` as JSON, for programs and as text, then the pictures, which are PNG."""
    content: list[ContentBlock] = [TextContent(text=printable.as_json(fields))]
    content += [
        ImageContent(data=base64.b64encode(picture).decode(), mime_type="image/png")
        for picture in pictures
    ]
    return CallToolResult(content=content, structured_content=fields)


def told(job: Job, url: str) -> dict[str, Any]:
    """The job, with the address of each of its files."""
    about = job.model_dump(mode="json", include=_TOLD, exclude_none=True)
    about["files"] = [
        {
            "name": file.name,
            "bytes": file.bytes,
            "url": f"{url}/v1/jobs/{job.id}/artifacts/{file.name}",
        }
        for file in job.artifacts
    ]
    return about


@contextmanager
def speaking() -> Iterator[None]:
    """What the service or a spec refuses becomes the tool's error, in the same sentences."""
    try:
        yield
    except DualProcessError as error:
        raise ToolError(str(error)) from error
    except ValidationError as error:
        faults = field_errors(error.errors(include_url=False, include_input=False)[:MAX_FAULTS])
        said = "\n".join(f"{fault.field}: {fault.message}" for fault in faults)
        raise ToolError(printable.lines(said)) from error
