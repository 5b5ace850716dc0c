"""``/v1/jobs/{id}/artifacts/{name}``: the files of a job."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from dualprocess.schemas import Job
from services.orchestrator.api.auth import READ
from services.orchestrator.api.conditions import is_another, is_known, wants_range
from services.orchestrator.api.job_files import job_file, names
from services.orchestrator.api.problems import ProblemError
from services.orchestrator.api.proxied import redirect_elsewhere
from services.orchestrator.api.state import JobDep, State, StateDep
from services.orchestrator.store.artifacts import MEDIA_TYPES, attachment

router = APIRouter(prefix="/v1/jobs", tags=["artifacts"])

# No file has a size of more than 18 digits, and Python refuses to parse a number with thousands of
# digits.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_COMPARING = ("if-match", "if-range")
_CONTENT: dict[str, dict[str, Any]] = {
    media_type: {} for media_type in ("application/octet-stream", *MEDIA_TYPES.values())
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": _CONTENT, "description": "The file."},
    206: {"content": _CONTENT, "description": "The requested range."},
    304: {"description": "`If-None-Match` names it."},
}
_ELSEWHERE: dict[int | str, dict[str, Any]] = {
    307: {"description": "To the file in the store, with `--signed-downloads`."},
}


@router.head(
    "/{job_id}/artifacts/{name}",
    dependencies=[READ],
    response_class=Response,
    responses=_RESPONSES,
)
@router.get(
    "/{job_id}/artifacts/{name}",
    dependencies=[READ],
    response_class=Response,
    responses=_RESPONSES | _ELSEWHERE,
)
async def artifact(
    job: JobDep,
    name: str,
    request: Request,
    state: StateDep,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
    _if_none_match: Annotated[
        str | None,
        Header(
            alias="If-None-Match", description="ETags for which the file is not sent again, or *."
        ),
    ] = None,
    _if_range: Annotated[
        str | None, Header(alias="If-Range", description="The ETag for which `Range` is meant.")
    ] = None,
) -> Response:
    """A file of the job. A request can ask for one range of bytes. Beside those in `artifacts`, a
    job with a LoRA has `adapter_config.json` and `adapter_model.safetensors`, the same LoRA as
    peft's folder."""
    try:
        # Before the answer begins, since its status can't be changed later.
        return await _answer(job, name, request, state, range_header)
    except FileNotFoundError as error:
        title = f"{name} of job {job.id} is gone from the artifact store"
        raise ProblemError(404, title, "It is lost; submit the job again.") from error


async def _answer(
    job: Job, name: str, request: Request, state: State, range_header: str | None
) -> Response:
    file = await job_file(state, job, name)
    if file is None:
        have = ", ".join(names(job)) or "none yet"
        raise ProblemError(404, f"Job {job.id} has no artifact {name!r}", f"Its files: {have}.")
    headers = {
        "ETag": file.etag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": attachment(file.name),
        "X-Content-Type-Options": "nosniff",
    }
    if is_another(request.headers, file.etag):
        title = f"{name} of job {job.id} is not the file that If-Match names"
        raise ProblemError(412, title, f"Its ETag is {file.etag}.")
    if is_known(request.headers, file.etag):
        return Response(status_code=304, headers=headers)
    # Those that compare would compare with the store's own ETag.
    compares = any(name in request.headers for name in _COMPARING)
    if file.path is not None and not compares and request.method != "HEAD":
        url = await state.artifacts.signed_url(file.path)
        if url is not None:
            return redirect_elsewhere(request.scope, url)
    asked = range_header if wants_range(request.headers, file.etag) else None
    begin, end = _asked_range(asked, file.size)
    status = 200
    if (begin, end) != (0, file.size):
        status = 206
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - begin)
    content = await file.open(begin, end)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.media_type)
    return StreamingResponse(
        content, status_code=status, headers=headers, media_type=file.media_type
    )


def _asked_range(header: str | None, size: int) -> tuple[int, int]:
    """The first byte, and the one after the last. An unreadable range, or several, mean the whole
    file."""
    match = _RANGE.fullmatch(header or "")
    if match is None or match.groups() == ("", ""):
        return 0, size
    first, last = match.groups()
    begin = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if begin >= end:
        raise ProblemError(416, "The range is outside the file", f"It has {size} bytes.")
    return begin, end
