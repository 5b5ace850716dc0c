"""Every route of the API as a ``Call``: what is sent, and how the answer is read."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel

from dualprocess.errors import JobNotReady
from dualprocess.protocol import Call, answer
from dualprocess.schemas import (
    AnswersReply,
    AnswersRequest,
    Batch,
    BatchRequest,
    DryRun,
    ExpansionReply,
    ExpansionRequest,
    ImagesRequest,
    Job,
    JobPage,
    JobSpec,
    JobStatus,
    ModelList,
    Question,
    QuestionsReply,
    QuestionsRequest,
    Version,
)

#: A request may take this much longer than the time that it asks to wait for.
_GRACE_SECONDS = 30

WordsT = TypeVar("WordsT")

#: Every request that makes the service's models compute.
WorkRequest: TypeAlias = (
    JobSpec | BatchRequest | ImagesRequest | AnswersRequest | QuestionsRequest | ExpansionRequest
)
_MAKING: Mapping[type[WorkRequest], str] = {
    JobSpec: "/v1/jobs",
    BatchRequest: "/v1/batches",
    ImagesRequest: "/v1/images",
    AnswersRequest: "/v1/answers",
    QuestionsRequest: "/v1/questions",
    ExpansionRequest: "/v1/prompts/expand",
}


def submit(spec: JobSpec, idempotency_key: str | None) -> Call[Job]:
    return Call("POST", "/v1/jobs", answer(Job), _once(spec, idempotency_key))


def dry_run(request: WorkRequest) -> Call[DryRun]:
    options = _body(request) | {"params": {"dry_run": "true"}}
    return Call("POST", _MAKING[type(request)], answer(DryRun), options)


def job(job_id: str) -> Call[Job]:
    return Call("GET", f"/v1/jobs/{job_id}", answer(Job))


def cancel(job_id: str) -> Call[Job]:
    return Call("POST", f"/v1/jobs/{job_id}/cancel", answer(Job))


def delete(job_id: str) -> Call[None]:
    return Call("DELETE", f"/v1/jobs/{job_id}", lambda _: None)


def submit_batch(request: BatchRequest, idempotency_key: str | None) -> Call[Batch]:
    return Call("POST", "/v1/batches", answer(Batch), _once(request, idempotency_key))


def batch(batch_id: str) -> Call[Batch]:
    return Call("GET", f"/v1/batches/{batch_id}", answer(Batch))


def cancel_batch(batch_id: str) -> Call[Batch]:
    return Call("POST", f"/v1/batches/{batch_id}/cancel", answer(Batch))


def read_artifact(job_id: str, name: str) -> Call[bytes]:
    # It may lie elsewhere. httpx sends the API key to no other host.
    options = {"follow_redirects": True}
    return Call("GET", f"/v1/jobs/{job_id}/artifacts/{name}", bytes, options)


def generate(request: ImagesRequest) -> Call[Job]:
    return _waiting("/v1/images", request, request.wait, answer(Job))


def ask(request: AnswersRequest) -> Call[list[str]]:
    def read(content: bytes) -> list[str]:
        reply = answer(AnswersReply)(content)
        return _ready(reply.answers, reply.job)

    return _waiting("/v1/answers", request, request.wait, read)


def write_questions(request: QuestionsRequest) -> Call[list[Question]]:
    def read(content: bytes) -> list[Question]:
        reply = answer(QuestionsReply)(content)
        return [
            Question(
                question=draft.question,
                answer=draft.answer,
                visual_prompt=request.visual_prompt if draft.on_drawing else None,
            )
            for draft in _ready(reply.questions, reply.job)
        ]

    return _waiting("/v1/questions", request, request.wait, read)


def expansion(request: ExpansionRequest) -> Call[tuple[str, list[str]]]:
    def read(content: bytes) -> tuple[str, list[str]]:
        reply = answer(ExpansionReply)(content)
        return _ready(reply.prompt, reply.job), reply.warnings

    return _waiting("/v1/prompts/expand", request, request.wait, read)


def models() -> Call[ModelList]:
    return Call("GET", "/v1/models", answer(ModelList))


def version() -> Call[str]:
    # Sent once: whoever asks wants to know whether anybody is there.
    def read(content: bytes) -> str:
        return answer(Version)(content).version

    return Call("GET", "/v1/version", read, repeat=False)


def metrics() -> Call[str]:
    return Call("GET", "/metrics", bytes.decode)


class JobPages:
    """Jobs page by page: while there is a next call, make it and take its answer's jobs."""

    def __init__(self, path: str = "/v1/jobs", *, status: JobStatus | None = None) -> None:
        self._path = path
        self._query: dict[str, str] | None = {"status": status} if status else {}

    def next(self) -> Call[JobPage] | None:
        """The call for the next page; ``None`` after the last."""
        if self._query is None:
            return None
        return Call("GET", self._path, answer(JobPage), {"params": self._query})

    def take(self, page: JobPage) -> Iterator[Job]:
        """The page's jobs. Warns if there are jobs that the service can't show."""
        if page.unreadable:
            warnings.warn(
                f"the service can't show these jobs, since a newer version stored them: "
                f"{', '.join(page.unreadable)}; upgrade the service",
                stacklevel=3,
            )
        more = page.next is not None and self._query is not None
        self._query = {**(self._query or {}), "cursor": page.next or ""} if more else None
        return iter(page.jobs)


def _waiting(
    path: str, request: BaseModel, seconds: float, read: Callable[[bytes], WordsT]
) -> Call[WordsT]:
    """A request that is answered within ``seconds``. It has no idempotency key, so if it were sent
    again it would be done twice."""
    options = _body(request) | {"timeout": seconds + _GRACE_SECONDS}
    return Call("POST", path, read, options, repeat=False)


def _ready(words: WordsT | None, job: Job | None) -> WordsT:
    if words is None:
        assert job is not None
        raise JobNotReady(job)
    return words


def _body(model: BaseModel) -> dict[str, Any]:
    return {
        "content": model.model_dump_json(exclude_unset=True),
        "headers": {"Content-Type": "application/json"},
    }


def _once(model: BaseModel, idempotency_key: str | None) -> dict[str, Any]:
    """A body that may be sent again: with the same key nothing is made twice."""
    options = _body(model)
    options["headers"]["Idempotency-Key"] = idempotency_key or secrets.token_hex(16)
    return options
