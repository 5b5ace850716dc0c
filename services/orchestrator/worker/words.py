"""One job in which a VLM answers questions about an image, or writes questions or a prompt."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from dualprocess.schemas import (
    Answers,
    ExpandedPrompt,
    JobStatus,
    ResolvedAnswersSpec,
    ResolvedExpansionSpec,
    ResolvedQuestionsSpec,
    WrittenQuestions,
)
from dualprocess.v1 import vlm_pb2
from services.common.replicas import Replicas
from services.orchestrator.store.artifacts import IMAGE_FILE
from services.orchestrator.worker.failures import JobRefused, JobStopped
from services.orchestrator.worker.files import read_file
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.stores import Stores
from services.orchestrator.worker.targets import Targets
from services.orchestrator.worker.vlm import SECONDS, asked
from services.orchestrator.writing import tasks
from services.orchestrator.writing.replies import BadReply
from services.orchestrator.writing.tasks import BLANK_SIDE, Task, WordsT, carried_out


async def speak(
    spec: ResolvedAnswersSpec | ResolvedQuestionsSpec | ResolvedExpansionSpec,
    lease: Lease,
    targets: Targets,
    stores: Stores,
) -> JobStatus:
    """Runs the job. Raises ``JobRefused`` when the VLM refuses, or twice writes what can't be used,
    and as ``asked`` does."""
    async with targets.open(spec.vlm) as replicas:
        result: Answers | WrittenQuestions | ExpandedPrompt
        match spec:
            case ResolvedAnswersSpec():
                speaker = _Speaker(replicas, lease, await _image(lease, stores))
                result = await _answers(spec, speaker)
            case ResolvedQuestionsSpec():
                image = await _image(lease, stores) if spec.drawing else _blank()
                speaker = _Speaker(replicas, lease, image)
                result = await _written(tasks.of_questions(spec), speaker)
            case ResolvedExpansionSpec():
                speaker = _Speaker(replicas, lease, _blank())
                expansion = tasks.of_expansion(spec)
                result = await _written(expansion, speaker)
                if doubt := expansion.doubt(result):
                    await lease.warn(doubt)
    await lease.record(fields={"result": result.model_dump_json()})
    return JobStatus.SUCCEEDED


@dataclass(frozen=True)
class _Speaker:
    """One VLM, looking at one encoded picture."""

    replicas: Replicas
    lease: Lease
    picture: bytes

    async def say(self, text: str, *, postfix: str = "", max_new_tokens: int) -> str:
        """Raises ``JobStopped`` where a cancel is wanted."""
        if self.lease.cancel_wanted.is_set():
            raise JobStopped
        request = vlm_pb2.AnswerRequest(
            image=self.picture,
            questions=[text],
            question_postfix=postfix,
            max_new_tokens=max_new_tokens,
        )
        response = await asked(
            "Answer",
            lambda stub: stub.Answer(request, timeout=SECONDS),
            self.replicas,
            self.lease,
            "to speak",
        )
        return response.answers[0]


async def _answers(spec: ResolvedAnswersSpec, speaker: _Speaker) -> Answers:
    return Answers(
        answers=[
            await speaker.say(
                question, postfix=spec.question_postfix, max_new_tokens=spec.max_new_tokens
            )
            for question in spec.questions
        ]
    )


async def _written(task: Task[WordsT], speaker: _Speaker) -> WordsT:
    async def ask(text: str) -> str:
        return await speaker.say(text, max_new_tokens=tasks.WRITTEN_TOKENS)

    try:
        return await carried_out(task, ask)
    except BadReply as error:
        raise JobRefused(
            f"the VLM {speaker.replicas.name} twice wrote what can't be used: {error}"
        ) from error


async def _image(lease: Lease, stores: Stores) -> bytes:
    return await read_file(lease.claim.job_id, IMAGE_FILE, stores, lease)


def _blank() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (BLANK_SIDE, BLANK_SIDE), "white").save(buffer, "PNG")
    return buffer.getvalue()
