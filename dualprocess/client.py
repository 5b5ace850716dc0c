"""A client of the REST API: submit, wait, watch, download."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from httpx_sse import connect_sse

from dualprocess import calls, connection
from dualprocess.connection import service_url, setting_up
from dualprocess.errors import RateLimited
from dualprocess.protocol import (
    DEFAULT_URL,
    FAILURES,
    Call,
    EventStream,
    Tries,
    api_error,
    appearing,
    headers,
    succeeded,
)
from dualprocess.schemas import (
    AnswersRequest,
    Batch,
    BatchRequest,
    DryRun,
    EventRecord,
    ExpansionRequest,
    ImagesRequest,
    Job,
    JobSpec,
    JobStatus,
    ModelList,
    Question,
    QuestionsRequest,
)

ResultT = TypeVar("ResultT")


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
        self._url = service_url(url)
        carried = headers(api_key)
        with setting_up():
            self._http = httpx.Client(
                base_url=self._url,
                headers=carried,
                timeout=timeout,
                transport=transport or connection.transport(self._url),
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
        return self._call(calls.submit(spec, idempotency_key))

    def dry_run(self, request: calls.WorkRequest) -> DryRun:
        """What a request comes to: how many jobs and how much work, and what the key's quota
        leaves. It is checked as always, and nothing is queued."""
        return self._call(calls.dry_run(request))

    def job(self, job_id: str) -> Job:
        """The job, as it is now."""
        return self._call(calls.job(job_id))

    def jobs(self, *, status: JobStatus | None = None) -> Iterator[Job]:
        """All jobs, newest first, page by page as they are asked for."""
        return self._pages(calls.JobPages(status=status))

    def cancel(self, job_id: str) -> Job:
        """Stops a job; what a running one learned so far is still exported."""
        return self._call(calls.cancel(job_id))

    def delete(self, job_id: str) -> None:
        """Deletes an ended job with all its files. Raises ``Conflict`` for one that has not ended.

        Of one that is deleted already, ``NotFound``.
        """
        self._call(calls.delete(job_id))

    def events(self, job_id: str, *, last_event_id: str | None = None) -> Iterator[EventRecord]:
        """Every event behind ``last_event_id``, as it comes, up to the one that ends the job.

        A broken connection is taken up again where it broke, however often; nothing is missed or
        comes twice. While the service lets no more streams be open, it is asked again until it
        does; a warning says so.
        """
        for record in self._followed(job_id, last_event_id):
            if record is not None:
                yield record

    def wait(self, job_id: str) -> Job:
        """The job, when it has succeeded. Raises ``JobFailed`` or ``JobCancelled``.

        Reads the job now and then while the service lets no more event streams be open.
        """
        for record in self._followed(job_id, None):
            if record is None and self.job(job_id).status.is_final:
                break
        return succeeded(self.job(job_id))

    def submit_batch(self, request: BatchRequest, *, idempotency_key: str | None = None) -> Batch:
        """Queues all jobs of a batch, or none. The same key and request give the same batch."""
        return self._call(calls.submit_batch(request, idempotency_key))

    def batch(self, batch_id: str) -> Batch:
        """The batch, as it is now: counts by status, and its jobs in brief."""
        return self._call(calls.batch(batch_id))

    def batch_jobs(self, batch_id: str, *, status: JobStatus | None = None) -> Iterator[Job]:
        """The jobs of a batch, the last submitted first, page by page as they are asked for."""
        return self._pages(calls.JobPages(f"/v1/batches/{batch_id}/jobs", status=status))

    def cancel_batch(self, batch_id: str) -> Batch:
        """Cancels every job of a batch that has not ended."""
        return self._call(calls.cancel_batch(batch_id))

    def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Writes an artifact to ``path``, which appears only when it is whole."""
        target, tries = Path(path), Tries(self._url)
        call = calls.read_artifact(job_id, name)
        while True:
            try:
                with self._http.stream(call.method, call.path, **call.options) as response:
                    if response.is_error:
                        response.read()
                        raise api_error(response)
                    with appearing(target) as file:
                        for chunk in response.iter_bytes():
                            file.write(chunk)
                return target
            except FAILURES as error:
                time.sleep(tries.pause(error))

    def read_artifact(self, job_id: str, name: str) -> bytes:
        """An artifact's bytes."""
        return self._call(calls.read_artifact(job_id, name))

    def generate(self, request: ImagesRequest) -> Job:
        """Renders images, and waits for them up to ``request.wait`` seconds.

        The job's artifacts ``image-SEED.png`` are there when its status is ``succeeded``.
        """
        return self._call(calls.generate(request))

    def ask(self, request: AnswersRequest) -> list[str]:
        """A VLM's own words about an image: an answer to each question.

        Raises ``JobNotReady`` when they aren't there within ``request.wait`` seconds.
        """
        return self._call(calls.ask(request))

    def write_questions(self, request: QuestionsRequest) -> list[Question]:
        """Questions for a prompt, the first restating it; those of the drawing carry it.

        The VLM writes that the request names, else the service's language model. Raises
        ``JobNotReady`` when the VLM hasn't within ``request.wait`` seconds.
        """
        return self._call(calls.write_questions(request))

    def expand_prompt(self, request: ExpansionRequest) -> str:
        """The prompt, written out for a generator. Raises as ``write_questions`` does."""
        prompt, _ = self.expansion(request)
        return prompt

    def expansion(self, request: ExpansionRequest) -> tuple[str, list[str]]:
        """As ``expand_prompt``, and sentences that warn where the request's generator does not
        read the prompt to its end."""
        return self._call(calls.expansion(request))

    def models(self) -> ModelList:
        """The generators and VLMs that jobs can name."""
        return self._call(calls.models())

    def metrics(self) -> str:
        """The service's measures in Prometheus's text format. Needs a key with scope admin."""
        return self._call(calls.metrics())

    def _call(self, call: Call[ResultT]) -> ResultT:
        tries = Tries(self._url, repeat=call.repeat)
        while True:
            try:
                return call.result(self._http.request(call.method, call.path, **call.options))
            except FAILURES as error:
                time.sleep(tries.pause(error))

    def _pages(self, pages: calls.JobPages) -> Iterator[Job]:
        while call := pages.next():
            yield from pages.take(self._call(call))

    def _followed(self, job_id: str, last_event_id: str | None) -> Iterator[EventRecord | None]:
        """Its events; ``None`` for each time that no stream could be had."""
        stream, tries = EventStream(job_id, last_event_id), Tries(self._url, stream=True)
        while True:
            try:
                for record in self._events_of_one_connection(stream, tries):
                    yield record
                    if stream.ended:
                        return
                if stream.ended or stream.is_all(self.job(job_id)):
                    return
                time.sleep(tries.breath)
            except FAILURES as error:
                pause = tries.pause(error)
                if isinstance(error, RateLimited):
                    yield None
                time.sleep(pause)

    def _events_of_one_connection(self, stream: EventStream, tries: Tries) -> Iterator[EventRecord]:
        with connect_sse(self._http, "GET", stream.path, headers=stream.headers()) as source:
            if source.response.is_error:
                source.response.read()
                raise api_error(source.response)
            if not stream.begins(source.response):
                return
            tries.answered(source.response)
            for sent in source.iter_sse():
                if record := stream.take(sent):
                    yield record
