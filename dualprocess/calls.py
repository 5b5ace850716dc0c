"""Every route of the API as a ``Call``: what is sent, and as what the answer is read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from dualprocess.protocol import Call
from dualprocess.schemas import (
    Batch,
    BatchRequest,
    ImagesRequest,
    Job,
    JobPage,
    JobSpec,
    JobStatus,
    ModelList,
)

#: What an images request may take beyond the time it is asked to wait for.
_IMAGES_GRACE_SECONDS = 30


def submit(spec: JobSpec, idempotency_key: str | None) -> Call[Job]:
    return Call("POST", "/v1/jobs", Job.model_validate_json, _once(spec, idempotency_key))


def job(job_id: str) -> Call[Job]:
    return Call("GET", f"/v1/jobs/{job_id}", Job.model_validate_json)


def cancel(job_id: str) -> Call[Job]:
    return Call("POST", f"/v1/jobs/{job_id}/cancel", Job.model_validate_json)


def delete(job_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/jobs/{job_id}", lambda _: None)


def submit_batch(request: BatchRequest, idempotency_key: str | None) -> Call[Batch]:
    read = Batch.model_validate_json
    return Call("POST", "/v1/batches", read, _once(request, idempotency_key))


def batch(batch_id: str) -> Call[Batch]:
    return Call("GET", f"/v1/batches/{batch_id}", Batch.model_validate_json)


def cancel_batch(batch_id: str) -> Call[Batch]:
    return Call("POST", f"/v1/batches/{batch_id}/cancel", Batch.model_validate_json)


def read_artifact(job_id: str, name: str) -> Call[bytes]:
    return Call("GET", f"/v1/jobs/{job_id}/artifacts/{name}", bytes)


def generate(request: ImagesRequest) -> Call[Job]:
    # Without an idempotency key a repeated request would render twice.
    timeout = {"timeout": request.wait + _IMAGES_GRACE_SECONDS}
    read = Job.model_validate_json
    return Call("POST", "/v1/images", read, _body(request) | timeout, repeat=False)


def models() -> Call[ModelList]:
    return Call("GET", "/v1/models", ModelList.model_validate_json)


def metrics() -> Call[str]:
    return Call("GET", "/metrics", bytes.decode)


class JobPages:
    """Jobs page by page: while there is a next call, make it and take its answer's jobs."""

    def __init__(self, path: str = "/v1/jobs", *, status: JobStatus | None = None) -> None:
        self._path = path
        self._query: dict[str, str] | None = {"status": status} if status else {}

    def next(self) -> Call[JobPage] | None:
        """The call for the next page; ``None`` behind the last."""
        if self._query is None:
            return None
        return Call("GET", self._path, JobPage.model_validate_json, {"params": self._query})

    def take(self, page: JobPage) -> Iterator[Job]:
        """The page's jobs."""
        more = page.next is not None and self._query is not None
        self._query = {**(self._query or {}), "cursor": page.next or ""} if more else None
        return iter(page.jobs)


def _body(model: BaseModel) -> dict[str, Any]:
    return {
        "content": model.model_dump_json(exclude_unset=True),
        "headers": {"Content-Type": "application/json"},
    }


def _once(model: BaseModel, idempotency_key: str | None) -> dict[str, Any]:
    """A body that may be sent again: the same key makes nothing twice."""
    options = _body(model)
    options["headers"]["Idempotency-Key"] = idempotency_key or secrets.token_hex(16)
    return options
