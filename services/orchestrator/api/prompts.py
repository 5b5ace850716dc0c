"""``/v1/prompts/expand``: writes a longer prompt."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response

from dualprocess.schemas import (
    DryRun,
    ExpandedPrompt,
    ExpansionReply,
    ExpansionRequest,
    FieldError,
    Job,
    ResolvedExpansionSpec,
)
from services.common.presets import GeneratorPreset, PresetError
from services.common.reading import most_words
from services.orchestrator.api.auth import SUBMIT, CallerDep
from services.orchestrator.api.dry_runs import IsDry
from services.orchestrator.api.json_route import JsonRoute
from services.orchestrator.api.problems import InvalidSpec
from services.orchestrator.api.reading import warnings
from services.orchestrator.api.state import State, StateDep
from services.orchestrator.api.words import (
    check_writing_vlm,
    endpoint_of,
    said_by_vlm,
    words_dry_run,
    written_by_endpoint,
)
from services.orchestrator.writing import tasks

router = APIRouter(prefix="/v1/prompts", tags=["words"], route_class=JsonRoute)


@router.post(
    "/expand",
    responses={202: {"model": ExpansionReply, "description": "Not done within `wait` seconds."}},
    dependencies=[SUBMIT],
)
async def expand(
    request: ExpansionRequest,
    state: StateDep,
    caller: CallerDep,
    response: Response,
    is_dry: IsDry = False,
) -> ExpansionReply | DryRun:
    """The prompt with what an eye would see beside what it says.

    The VLM that the request names writes it, in a job, else the service's language model.
    """
    preset = _generator(request.generator, state)
    most = most_words(preset) if preset else None
    task = tasks.expansion(
        request.prompt,
        instructions=request.instructions,
        generator=request.generator,
        most_words=most,
    )
    if request.vlm is None:
        endpoint = endpoint_of(state)
        if is_dry:
            return await words_dry_run(None, state, caller)
        written = await written_by_endpoint(task, endpoint, state, caller, wait=request.wait)
        return await _reply(written, task, preset)
    check_writing_vlm(request.vlm, state, task)
    spec = ResolvedExpansionSpec(
        vlm=request.vlm,
        prompt=request.prompt,
        generator=request.generator,
        most_words=most,
        instructions=request.instructions,
    )
    if is_dry:
        return await words_dry_run(spec, state, caller)
    job, said = await said_by_vlm(spec, state, caller, response, wait=request.wait)
    if not isinstance(said, ExpandedPrompt):
        return ExpansionReply(prompt=None, job=job)
    return await _reply(said, task, preset, job)


def _generator(name: str | None, state: State) -> GeneratorPreset | None:
    if name is None:
        return None
    try:
        return state.presets.generator(name)
    except PresetError as error:
        raise InvalidSpec(FieldError(field="generator", message=str(error))) from error


async def _reply(
    written: ExpandedPrompt,
    task: tasks.Task[ExpandedPrompt],
    preset: GeneratorPreset | None,
    job: Job | None = None,
) -> ExpansionReply:
    """If the tokenizer is here, the warning names the exact place instead of a number of words."""
    told = await asyncio.to_thread(warnings, preset, [written.prompt]) if preset else []
    if not told and (doubt := task.doubt(written)):
        told = [doubt]
    return ExpansionReply(prompt=written.prompt, warnings=told, job=job)
