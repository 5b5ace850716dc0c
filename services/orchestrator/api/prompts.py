"""``/v1/prompts/expand``: a prompt, written out."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dualprocess.schemas import (
    ExpandedPrompt,
    ExpansionReply,
    ExpansionRequest,
    ResolvedExpansionSpec,
)
from services.orchestrator.api.auth import SUBMIT, CallerDep
from services.orchestrator.api.state import StateDep
from services.orchestrator.api.words import (
    check_writing_vlm,
    endpoint_of,
    said_by_vlm,
    written_by_endpoint,
)
from services.orchestrator.writing import tasks

router = APIRouter(prefix="/v1/prompts", tags=["words"])


@router.post(
    "/expand",
    responses={202: {"model": ExpansionReply, "description": "Not done within `wait`."}},
    dependencies=[SUBMIT],
)
async def expand(
    request: ExpansionRequest, state: StateDep, caller: CallerDep, response: Response
) -> ExpansionReply:
    """The prompt with what an eye would see beside what it says.

    The VLM that the request names writes it, in a job, else the service's language model.
    """
    task = tasks.expansion(request.prompt, instructions=request.instructions)
    if request.vlm is None:
        endpoint = endpoint_of(state)
        written = await written_by_endpoint(task, endpoint, state, caller, wait=request.wait)
        return ExpansionReply(prompt=written.prompt, job=None)
    check_writing_vlm(request.vlm, state, task)
    spec = ResolvedExpansionSpec(
        vlm=request.vlm, prompt=request.prompt, instructions=request.instructions
    )
    job, said = await said_by_vlm(spec, state, caller, response, wait=request.wait)
    return ExpansionReply(prompt=said.prompt if isinstance(said, ExpandedPrompt) else None, job=job)
