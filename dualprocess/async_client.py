"""``Client`` for asyncio: the same methods, to be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from httpx_sse import aconnect_sse

from dualprocess import calls, connection
from dualprocess.connection import service_url, setting_up
from dualprocess.errors import RateLimited
from dualprocess.lora_forms import CARD_FILE, LoraForm, files_of
from dualprocess.model_card import model_card
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


class AsyncClient:
    """Talks to the service at ``url``. Use it as a context manager, or ``close`` it.

    Its methods do what ``Client``'s do and raise what they raise; ``jobs`` and ``events`` are
    async iterators.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = service_url(url)
        carried = headers(api_key)
        with setting_up():
            self._http = httpx.AsyncClient(
                base_url=self._url,
                headers=carried,
                timeout=timeout,
                verify=connection.certificates(self._url),
                transport=transport or connection.async_transport(self._url),
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Queues a job. A second call with the same key and spec returns the same job."""
        return await self._call(calls.submit(spec, idempotency_key))

    async def dry_run(self, request: calls.WorkRequest) -> DryRun:
        """What a request would come to: its spec with all defaults, its work, the queue before it,
        how long it runs as far as earlier jobs tell, what it would be warned of, and how a quota
        would refuse it. The request is checked like a real one, and nothing is queued."""
        return await self._call(calls.dry_run(request))

    async def job(self, job_id: str) -> Job:
        """The job, as it is now."""
        return await self._call(calls.job(job_id))

    def jobs(self, *, status: JobStatus | None = None) -> AsyncIterator[Job]:
        """All jobs, newest first. Each page is fetched when it is needed."""
        return self._pages(calls.JobPages(status=status))

    async def cancel(self, job_id: str) -> Job:
        """Stops a job; what a running one learned so far is still exported."""
        return await self._call(calls.cancel(job_id))

    async def delete(self, job_id: str) -> None:
        """Deletes an ended job with all its files. Raises ``Conflict`` for one that has not ended.

        Raises ``NotFound`` for one that is already deleted.
        """
        await self._call(calls.delete(job_id))

    async def events(
        self, job_id: str, *, last_event_id: str | None = None
    ) -> AsyncIterator[EventRecord]:
        """Every event after ``last_event_id``, as it arrives, up to the one that ends the job.

        A broken connection is continued where it broke, however often: no event is missed or comes
        twice. While too many event streams are open, the service is asked again until there is a
        place; a warning says so.
        """
        async with aclosing(self._followed(job_id, last_event_id)) as records:
            async for record in records:
                if record is not None:
                    yield record

    async def wait(self, job_id: str) -> Job:
        """Waits for the job's end, and returns the job if it succeeded. Raises ``JobFailed`` or
        ``JobCancelled``.

        While too many event streams are open, it reads the job from time to time instead.
        """
        async with aclosing(self._followed(job_id, None)) as records:
            async for record in records:
                if record is None and (await self.job(job_id)).status.is_final:
                    break
        return succeeded(await self.job(job_id))

    async def submit_batch(
        self, request: BatchRequest, *, idempotency_key: str | None = None
    ) -> Batch:
        """Queues all jobs of a batch, or none. A second call with the same key and request returns
        the same batch."""
        return await self._call(calls.submit_batch(request, idempotency_key))

    async def batch(self, batch_id: str) -> Batch:
        """The batch, as it is now: counts by status, and its jobs in brief."""
        return await self._call(calls.batch(batch_id))

    def batch_jobs(self, batch_id: str, *, status: JobStatus | None = None) -> AsyncIterator[Job]:
        """The jobs of a batch, the last submitted first. Each page is fetched when it is needed."""
        return self._pages(calls.JobPages(f"/v1/batches/{batch_id}/jobs", status=status))

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancels every job of a batch that has not ended."""
        return await self._call(calls.cancel_batch(batch_id))

    async def download(self, job_id: str, name: str, path: str | Path) -> Path:
        """Writes an artifact to ``path``. The file appears only when it is complete."""
        target, tries = Path(path), Tries(self._url)
        call = calls.read_artifact(job_id, name)
        while True:
            try:
                async with self._http.stream(call.method, call.path, **call.options) as response:
                    if response.is_error:
                        await response.aread()
                        raise api_error(response)
                    with appearing(target) as file:
                        async for chunk in response.aiter_bytes():
                            await asyncio.to_thread(file.write, chunk)
                return target
            except FAILURES as error:
                await asyncio.sleep(tries.pause(error))

    async def pull(
        self, job_id: str, folder: str | Path, form: LoraForm = LoraForm.DIFFUSERS
    ) -> list[Path]:
        """Writes a job's LoRA in this form into ``folder``, as tools load it and a hub takes it:
        with its pictures, and ``README.md``, its model card. Raises ``NoLora``."""
        job = await self.job(job_id)
        names = files_of(job, form)
        into = Path(folder)
        await asyncio.to_thread(into.mkdir, parents=True, exist_ok=True)
        written = [await self.download(job_id, name, into / name) for name in names]
        listed = (await self.models()).generators
        base = next((one for one in listed if one.name == job.generator), None)
        with appearing(into / CARD_FILE) as file:
            file.write(model_card(job, base, form).encode())
        return [*written, into / CARD_FILE]

    async def read_artifact(self, job_id: str, name: str) -> bytes:
        """An artifact's bytes."""
        return await self._call(calls.read_artifact(job_id, name))

    async def generate(self, request: ImagesRequest) -> Job:
        """Renders images, and waits for them up to ``request.wait`` seconds.

        The job's artifacts ``image-SEED.png`` are there when its status is ``succeeded``.
        """
        return await self._call(calls.generate(request))

    async def ask(self, request: AnswersRequest) -> list[str]:
        """A VLM's answers about an image, in its own words: one for each question.

        Raises ``JobNotReady`` when they aren't there within ``request.wait`` seconds.
        """
        return await self._call(calls.ask(request))

    async def write_questions(self, request: QuestionsRequest) -> list[Question]:
        """Questions for a prompt. The first restates the prompt; those about the drawing have it
        with them.

        The VLM that the request names writes them, or else the service's language model. Raises
        ``JobNotReady`` when the VLM has not answered within ``request.wait`` seconds.
        """
        return await self._call(calls.write_questions(request))

    async def expand_prompt(self, request: ExpansionRequest) -> str:
        """A longer prompt for a generator. Raises what ``write_questions`` raises."""
        prompt, _ = await self.expansion(request)
        return prompt

    async def expansion(self, request: ExpansionRequest) -> tuple[str, list[str]]:
        """The longer prompt, as from ``expand_prompt``, and warnings if the request's generator
        does not read it to its end."""
        return await self._call(calls.expansion(request))

    async def models(self) -> ModelList:
        """The generators and VLMs that jobs can name."""
        return await self._call(calls.models())

    async def version(self) -> str:
        """The service's version; it needs no key. Asked once: nobody who does not answer is asked
        again. Raises ``NotFound`` for a service that is too old to tell it."""
        return await self._call(calls.version())

    async def metrics(self) -> str:
        """The service's metrics in Prometheus's text format. Needs a key with scope admin."""
        return await self._call(calls.metrics())

    async def _call(self, call: Call[ResultT]) -> ResultT:
        tries = Tries(self._url, repeat=call.repeat)
        while True:
            try:
                return call.result(await self._http.request(call.method, call.path, **call.options))
            except FAILURES as error:
                await asyncio.sleep(tries.pause(error))

    async def _pages(self, pages: calls.JobPages) -> AsyncIterator[Job]:
        while call := pages.next():
            for job in pages.take(await self._call(call)):
                yield job

    async def _followed(
        self, job_id: str, last_event_id: str | None
    ) -> AsyncGenerator[EventRecord | None, None]:
        """The job's events; ``None`` each time that too many streams were open."""
        stream, tries = EventStream(job_id, last_event_id), Tries(self._url, stream=True)
        while True:
            try:
                async with aclosing(self._events_of_one_connection(stream, tries)) as records:
                    async for record in records:
                        yield record
                        if stream.ended:
                            return
                if stream.ended or stream.is_all(await self.job(job_id)):
                    return
                await asyncio.sleep(tries.breath)
            except FAILURES as error:
                pause = tries.pause(error)
                if isinstance(error, RateLimited):
                    yield None
                await asyncio.sleep(pause)

    async def _events_of_one_connection(
        self, stream: EventStream, tries: Tries
    ) -> AsyncGenerator[EventRecord, None]:
        async with aconnect_sse(self._http, "GET", stream.path, headers=stream.headers()) as source:
            if source.response.is_error:
                await source.response.aread()
                raise api_error(source.response)
            if not stream.begins(source.response):
                return
            tries.answered(source.response)
            async for sent in source.aiter_sse():
                if record := stream.take(sent):
                    yield record
