"""``/v1/questions``: questions and answers for a prompt, written."""

from __future__ import annotations

from fastapi import APIRouter, Response

from dualprocess.schemas import (
    DryRun,
    QuestionsReply,
    QuestionsRequest,
    ResolvedQuestionsSpec,
    WrittenQuestions,
)
from services.orchestrator.api.auth import SUBMIT, CallerDep
from services.orchestrator.api.dry_runs import IsDry
from services.orchestrator.api.json_route import JsonRoute
from services.orchestrator.api.state import StateDep
from services.orchestrator.api.words import (
    check_writing_vlm,
    checked_picture,
    endpoint_of,
    said_by_vlm,
    words_dry_run,
    written_by_endpoint,
)
from services.orchestrator.writing import tasks

router = APIRouter(prefix="/v1/questions", tags=["words"], route_class=JsonRoute)


@router.post(
    "",
    responses={202: {"model": QuestionsReply, "description": "Not done within `wait` seconds."}},
    dependencies=[SUBMIT],
)
async def write(
    request: QuestionsRequest,
    state: StateDep,
    caller: CallerDep,
    response: Response,
    is_dry: IsDry = False,
) -> QuestionsReply | DryRun:
    """Up to `count` questions with their right answers, for a prompt and perhaps a drawing.

    The VLM that the request names writes them, in a job, else the service's language model.
    """
    drawing = request.visual_prompt
    task = tasks.questions(
        request.prompt,
        count=request.count,
        drawing=drawing is not None,
        first=request.first,
        instructions=request.instructions,
    )
    image = await checked_picture(drawing.image, "visual_prompt.image") if drawing else None
    if request.vlm is None:
        endpoint = endpoint_of(state)
        if is_dry:
            return await words_dry_run(None, state, caller)
        written = await written_by_endpoint(
            task, endpoint, state, caller, wait=request.wait, image=image
        )
        return QuestionsReply(questions=written.questions, job=None)
    check_writing_vlm(request.vlm, state, task)
    spec = ResolvedQuestionsSpec(
        vlm=request.vlm,
        prompt=request.prompt,
        count=request.count,
        drawing=drawing is not None,
        first=request.first,
        instructions=request.instructions,
    )
    if is_dry:
        return await words_dry_run(spec, state, caller, image=image)
    job, said = await said_by_vlm(spec, state, caller, response, wait=request.wait, image=image)
    return QuestionsReply(
        questions=said.questions if isinstance(said, WrittenQuestions) else None, job=job
    )
