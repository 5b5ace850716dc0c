"""What the routes that ask for words have in common: choosing the writer, and answering."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from fastapi import Response

from dualprocess.schemas import (
    Answers,
    DryRun,
    ExpandedPrompt,
    FieldError,
    Job,
    JobStatus,
    ResolvedAnswersSpec,
    ResolvedExpansionSpec,
    ResolvedQuestionsSpec,
    WrittenQuestions,
)
from services.common.errors import InvalidInput
from services.common.limits import MAX_TEXT
from services.common.presets import PresetError, Presets
from services.orchestrator.api import short_jobs
from services.orchestrator.api.auth import Caller
from services.orchestrator.api.dry_runs import dry_run
from services.orchestrator.api.pictures import pixels_of, plain_png
from services.orchestrator.api.problems import InvalidSpec, ProblemError
from services.orchestrator.api.quotas import check_work
from services.orchestrator.api.state import State
from services.orchestrator.store.artifacts import IMAGE_FILE
from services.orchestrator.store.ids import new_job_id
from services.orchestrator.store.jobs import words_fields
from services.orchestrator.work import Work, words_work
from services.orchestrator.writing.endpoint import Endpoint, EndpointBusy, EndpointFault
from services.orchestrator.writing.replies import BadReply
from services.orchestrator.writing.tasks import NOTE_CHARACTERS, Task, WordsT, carried_out

WordsSpec: TypeAlias = ResolvedAnswersSpec | ResolvedQuestionsSpec | ResolvedExpansionSpec


async def checked_picture(image: bytes, field: str) -> bytes:
    """The picture as a plain PNG. Raises ``InvalidSpec``."""
    try:
        # Decoded off the event loop.
        return await asyncio.to_thread(plain_png, image, field)
    except InvalidInput as error:
        message = str(error).removeprefix(f"{field}: ")
        raise InvalidSpec(FieldError(field=field, message=message)) from error


def check_vlm(name: str, presets: Presets) -> None:
    """Raises ``InvalidSpec`` for an unknown one."""
    try:
        presets.vlm(name)
    except PresetError as error:
        raise InvalidSpec(FieldError(field="vlm", message=str(error))) from error


def check_writing_vlm(name: str, state: State, task: Task[WordsT]) -> None:
    """Raises ``InvalidSpec`` if the VLM can't write, or the task is too long for it."""
    check_vlm(name, state.presets)
    if not state.presets.vlm(name).writes:
        able = _writing_vlms(state.presets)
        other = "leave it out" if state.endpoint else "set up a language model for the service"
        message = f"{name} is too small a model to write: name one of {able}, or {other}"
        raise InvalidSpec(FieldError(field="vlm", message=message))
    over = len(task.text) + NOTE_CHARACTERS - MAX_TEXT
    if over > 0:
        message = (
            f"is, together with the instructions, {over} characters too long for a VLM; shorten it"
        )
        raise InvalidSpec(FieldError(field="prompt", message=message))


def endpoint_of(state: State) -> Endpoint:
    """The service's language model. Raises ``InvalidSpec`` if there is none."""
    if state.endpoint is None:
        message = (
            "is missing, and this service has no language model (DUALPROCESS_LLM_BASE_URL): name "
            f"one of {_writing_vlms(state.presets)}"
        )
        raise InvalidSpec(FieldError(field="vlm", message=message))
    return state.endpoint


async def words_dry_run(
    spec: WordsSpec | None, state: State, caller: Caller, *, image: bytes | None = None
) -> DryRun:
    """The dry run of a request for words. Without a spec the service's language model writes: then
    there is no job, and no work for a VLM."""
    if spec is None:
        return await dry_run(Work({}), state, caller, jobs=0, priority=short_jobs.PRIORITY)
    return await dry_run(
        _checked_work(spec, state, caller, image),
        state,
        caller,
        needs=[("", [spec.vlm])],
        priority=short_jobs.PRIORITY,
        spec=spec,
    )


def _checked_work(spec: WordsSpec, state: State, caller: Caller, image: bytes | None) -> Work:
    work = words_work(spec, None if image is None else pixels_of(image))
    check_work(caller, work, state.max_job_work)
    return work


async def said_by_vlm(
    spec: WordsSpec,
    state: State,
    caller: Caller,
    response: Response,
    *,
    wait: float,
    image: bytes | None = None,
) -> tuple[Job, Answers | WrittenQuestions | ExpandedPrompt | None]:
    """The job and its words; ``None`` while there are none. Raises ``ProblemError`` if the job
    ended without words, ``InvalidSpec`` for more work than is allowed."""
    work = _checked_work(spec, state, caller, image)
    job = await short_jobs.run(
        words_fields(spec, work),
        work,
        state,
        caller,
        response,
        generator="",
        vlms=[spec.vlm],
        wait=wait,
        job_id=new_job_id(),
        files={} if image is None else {IMAGE_FILE: image},
    )
    if job.status == JobStatus.CANCELLED:
        raise ProblemError(409, f"Job {job.id} was cancelled", "Ask again.")
    if job.status == JobStatus.FAILED:
        # It failed at once and without a reply, so the request itself is wrong.
        refused = isinstance(spec, ResolvedAnswersSpec) and not job.causes
        title = f"The VLM {spec.vlm} {'refuses this' if refused else 'did not do it'}"
        raise ProblemError(422 if refused else 502, title, f"Job {job.id}: {job.error}")
    return job, job.result


async def written_by_endpoint(
    task: Task[WordsT],
    endpoint: Endpoint,
    state: State,
    caller: Caller,
    *,
    wait: float,
    image: bytes | None = None,
) -> WordsT:
    """The text that the service's language model writes. Raises ``ProblemError`` if it can't within
    ``wait`` seconds, ``QuotaExceeded`` while the caller already has as many of these requests as a
    key may have running jobs."""

    async def ask(text: str) -> str:
        return await endpoint.reply(text, image)

    name = f"The language model {endpoint.model}"
    running = caller.quotas.running if caller.quotas else None
    try:
        async with state.turns.held(caller.owner, running, seconds=wait), asyncio.timeout(wait):
            return await carried_out(task, ask)
    except TimeoutError as error:
        detail = "Ask again with a longer `wait`, or ask for less."
        raise ProblemError(504, f"{name} took more than {wait:g} seconds", detail) from error
    except EndpointBusy as error:
        headers = {} if error.seconds is None else {"Retry-After": str(error.seconds)}
        raise ProblemError(503, f"{name} is busy", f"{error}. Ask again later.", headers) from error
    except EndpointFault as error:
        raise ProblemError(502, f"{name} did not reply", f"{error}.") from error
    except BadReply as error:
        detail = f"The second reply: {error}. Ask again, or change the instructions."
        raise ProblemError(502, f"{name} twice wrote what can't be used", detail) from error


def _writing_vlms(presets: Presets) -> str:
    return ", ".join(preset.name for preset in presets.vlms.values() if preset.writes)
