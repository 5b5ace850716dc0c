"""A client of the REST API: submit, wait, watch, download."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_sse import ServerSentEvent, connect_sse
from pydantic import TypeAdapter, ValidationError

from dualprocess.errors import (
    ApiError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthorized,
)
from dualprocess.schemas import (
    Event,
    EventRecord,
    ImagesRequest,
    Job,
    JobPage,
    JobSpec,
    JobStatus,
    ModelList,
    Problem,
    StatusEvent,
)

DEFAULT_URL = "http://127.0.0.1:8000"

#: Pauses between tries while the service is away; then the error is the caller's.
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)

_EVENT: TypeAdapter[Event] = TypeAdapter(Event)

_ERRORS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}


class Client:
    """Talks to the service at ``url``. Use it as a context manager, or ``close`` it.

    Every call raises an ``ApiError`` for what the service refuses and ``ConnectionFailed`` when
    nobody answers. What is safe to repeat is repeated for some seconds while the service is away;
    a submission is, since it carries an idempotency key. Where the service asks for an API key, it
    is ``api_key``, or that of the environment's ``DUALPROCESS_API_KEY``: without one every call
    raises ``Unauthorized``. ``transport`` is for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        key = (api_key or os.environ.get("DUALPROCESS_API_KEY", "")).strip()
        self._http = httpx.Client(
            base_url=self._url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Queues a job. The same key and spec again give the same job again."""
        response = self._request(
            "POST",
            "/v1/jobs",
            content=spec.model_dump_json(exclude_unset=True),
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": idempotency_key or secrets.token_hex(16),
            },
        )
        return Job.model_validate_json(response.content)

    def job(self, job_id: str) -> Job:
        """The job, as it is now."""
        return Job.model_validate_json(self._request("GET", f"/v1/jobs/{job_id}").content)

    def jobs(self, *, status: JobStatus | None = None) -> Iterator[Job]:
        """All jobs, newest first, page by page as they are asked for."""
        query: dict[str, str] = {"status": status} if status else {}
        while True:
            page = JobPage.model_validate_json(
                self._request("GET", "/v1/jobs", params=query).content
            )
            yield from page.jobs
            if page.next is None:
                return
            query["cursor"] = page.next

    def cancel(self, job_id: str) -> Job:
        """Stops a job; what a running one learned so far is still exported."""
        return Job.model_validate_json(self._request("POST", f"/v1/jobs/{job_id}/cancel").content)

    def events(self, job_id: str, *, last_event_id: str | None = None) -> Iterator[EventRecord]:
        """Every event behind ``last_event_id``, as it comes, up to the one that ends the job.

        A broken connection is taken up again where it broke; nothing is missed or comes twice.
        """
        tries = 0
        while True:
            try:
                for record in self._events_of_one_connection(job_id, last_event_id):
                    tries = 0
                    last_event_id = record.id
                    yield record
                    event = record.event
                    if isinstance(event, StatusEvent) and event.status.is_final:
                        return
                if self.job(job_id).status.is_final:
                    return
            except (httpx.TransportError, ServiceUnavailable) as error:
                if tries == len(RETRY_SECONDS):
                    raise self._failed(error) from error
                time.sleep(RETRY_SECONDS[tries])
                tries += 1

    def _events_of_one_connection(
        self, job_id: str, last_event_id: str | None
    ) -> Iterator[EventRecord]:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        path = f"/v1/jobs/{job_id}/events"
        with connect_sse(self._http, "GET", path, headers=headers) as source:
            if source.response.is_error:
                source.response.read()
                raise _api_error(source.response)
            for sent in source.iter_sse():
                if record := _record(sent):
                    yield record

    def wait(self, job_id: str) -> Job:
        """The job, when it has succeeded. Raises ``JobFailed`` or ``JobCancelled``."""
        for _ in self.events(job_id):
            pass
        job = self.job(job_id)
        if job.status == JobStatus.FAILED:
            raise JobFailed(job)
        if job.status == JobStatus.CANCELLED:
            raise JobCancelled(job)
        return job

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Writes an artifact to ``path``, which appears only when it is whole."""
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            with self._http.stream("GET", f"/v1/jobs/{job_id}/artifacts/{name}") as response:
                if response.is_error:
                    response.read()
                    raise _api_error(response)
                with part.open("wb") as file:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
        except httpx.TransportError as error:
            part.unlink(missing_ok=True)
            raise self._failed(error) from error
        return part.rename(target)

    def read_artifact(self, job_id: str, name: str) -> bytes:
        """An artifact's bytes."""
        return self._request("GET", f"/v1/jobs/{job_id}/artifacts/{name}").content

    def generate(self, request: ImagesRequest) -> Job:
        """Renders images, and waits for them up to ``request.wait`` seconds.

        The job's artifacts ``image-SEED.png`` are there when its status is ``succeeded``.
        """
        response = self._request(
            "POST",
            "/v1/images",
            # Without an idempotency key a repeated request would render twice.
            repeat=False,
            content=request.model_dump_json(exclude_unset=True),
            headers={"Content-Type": "application/json"},
            timeout=request.wait + 30,
        )
        return Job.model_validate_json(response.content)

    def models(self) -> ModelList:
        """The generators and VLMs that jobs can name."""
        return ModelList.model_validate_json(self._request("GET", "/v1/models").content)

    def _request(
        self, method: str, path: str, *, repeat: bool = True, **options: Any
    ) -> httpx.Response:
        tries = 0
        while True:
            error: httpx.TransportError | ApiError
            try:
                response = self._http.request(method, path, **options)
                if not response.is_error:
                    return response
                error = _api_error(response)
                if not isinstance(error, ServiceUnavailable):
                    raise error
            except httpx.TransportError as transport_error:
                error = transport_error
            if not repeat or tries == len(RETRY_SECONDS):
                raise self._failed(error) from error
            time.sleep(getattr(error, "retry_after", None) or RETRY_SECONDS[tries])
            tries += 1

    def _failed(self, error: httpx.TransportError | ApiError) -> Exception:
        if isinstance(error, ApiError):
            return error
        return ConnectionFailed(
            f"nobody answers at {self._url} ({error}); start the service with `dualprocess up`, "
            "or name its address"
        )


def _api_error(response: httpx.Response) -> ApiError:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        # Something between the client and the service answered.
        problem = Problem(title=f"HTTP status {response.status_code}", status=response.status_code)
    header = response.headers.get("Retry-After", "")
    retry_after = float(header) if header.isdecimal() else None
    return _ERRORS.get(response.status_code, ApiError)(problem, retry_after=retry_after)


def _record(sent: ServerSentEvent) -> EventRecord | None:
    return EventRecord(id=sent.id, event=_EVENT.validate_json(sent.data)) if sent.data else None
