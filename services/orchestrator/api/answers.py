"""``/v1/answers``: what a VLM says about an image, in its own words."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dualprocess.schemas import (
    Answers,
    AnswersReply,
    AnswersRequest,
    DryRun,
    ResolvedAnswersSpec,
)
from services.orchestrator.api.auth import SUBMIT, CallerDep
from services.orchestrator.api.dry_runs import IsDry
from services.orchestrator.api.json_route import JsonRoute
from services.orchestrator.api.state import StateDep
from services.orchestrator.api.words import (
    check_vlm,
    checked_picture,
    said_by_vlm,
    words_dry_run,
)

router = APIRouter(prefix="/v1/answers", tags=["words"], route_class=JsonRoute)


@router.post(
    "",
    responses={202: {"model": AnswersReply, "description": "Not done within `wait` seconds."}},
    dependencies=[SUBMIT],
)
async def ask(
    request: AnswersRequest,
    state: StateDep,
    caller: CallerDep,
    response: Response,
    is_dry: IsDry = False,
) -> AnswersReply | DryRun:
    """A VLM's answer to each question about an image; 202 if they are not done in time."""
    check_vlm(request.vlm, state.presets)
    image = await checked_picture(request.image, "image")
    spec = ResolvedAnswersSpec(
        vlm=request.vlm,
        questions=request.questions,
        question_postfix=request.question_postfix,
        max_new_tokens=request.max_new_tokens,
    )
    if is_dry:
        return await words_dry_run(spec, state, caller, image=image)
    job, said = await said_by_vlm(spec, state, caller, response, wait=request.wait, image=image)
    return AnswersReply(answers=said.answers if isinstance(said, Answers) else None, job=job)
