"""What a VLM says of saved pictures, as the API shows it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from dualprocess.schemas import ImageScore, Probability, Question, QuestionScore, Score
from dualprocess.v1 import vlm_pb2
from services.common.replicas import Replicas
from services.orchestrator.worker import wire
from services.orchestrator.worker.lease import Lease
from services.orchestrator.worker.targets import Targets
from services.orchestrator.worker.vlm import SECONDS, asked

#: Pictures in one call: far below the message limit at any size that presets allow.
_PICTURES = 8


class _Asking(Protocol):
    @property
    def questions(self) -> list[Question]: ...
    @property
    def question_postfix(self) -> str: ...


@contextlib.asynccontextmanager
async def scoring(vlm: str, targets: Targets, lease: Lease, spec: _Asking) -> AsyncIterator[Scorer]:
    """A scorer of the job's pictures by its questions, at one VLM."""
    async with targets.open(vlm) as replicas:
        yield Scorer(replicas, lease, spec.questions, spec.question_postfix)


class Scorer:
    """Asks one VLM the questions of a job; while it is away the job says so and waits."""

    def __init__(
        self,
        replicas: Replicas,
        lease: Lease,
        questions: Sequence[Question],
        postfix: str,
    ) -> None:
        self._replicas = replicas
        self._lease = lease
        self._questions = questions
        self._postfix = postfix

    async def score(self, pictures: Sequence[bytes]) -> Score:
        """Means over the encoded pictures.

        Raises as ``asked`` does.
        """
        return self._mean(await self._rows(pictures))

    async def score_each(self, pictures: Sequence[bytes]) -> tuple[Score, list[Score]]:
        """Means over the encoded pictures, and the score of each. Raises as ``asked`` does."""
        rows = await self._rows(pictures)
        return self._mean(rows), [self._mean([row]) for row in rows]

    async def _rows(self, pictures: Sequence[bytes]) -> list[vlm_pb2.ImageAnswers]:
        rows: list[vlm_pb2.ImageAnswers] = []
        for begin in range(0, len(pictures), _PICTURES):
            request = vlm_pb2.ScoreRequest(
                images=pictures[begin : begin + _PICTURES],
                questions=wire.questions(self._questions),
                question_postfix=self._postfix,
            )
            rows += (await self._ask(request)).images
        return rows

    def _mean(self, rows: Sequence[vlm_pb2.ImageAnswers]) -> Score:
        per_question = [
            _question_score(question, [row.answers[index] for row in rows])
            for index, question in enumerate(self._questions)
        ]
        weights = [question.weight for question in self._questions]
        return Score(
            probability=mean_probability([score.probability for score in per_question], weights),
            correct=_mean([score.correct or 0.0 for score in per_question], weights),
            questions=per_question,
        )

    async def _ask(self, request: vlm_pb2.ScoreRequest) -> vlm_pb2.ScoreResponse:
        return await asked(
            "Score",
            lambda stub: stub.Score(request, timeout=SECONDS),
            self._replicas,
            self._lease,
            "to score the results",
        )


def _question_score(question: Question, answers: Sequence[vlm_pb2.AnswerResult]) -> QuestionScore:
    right = question.answer.casefold().strip()
    return QuestionScore(
        question=question.question,
        answer=question.answer,
        probability=Probability(
            joint=_mean([answer.joint_probability for answer in answers]),
            geometric_mean=_mean([answer.geometric_mean_probability for answer in answers]),
        ),
        correct=_mean([float(answer.predicted.casefold() == right) for answer in answers]),
    )


def image_scores(scores: Mapping[int, Score]) -> list[ImageScore]:
    """The scores of single images by their seeds, in order."""
    return [
        ImageScore(seed=seed, probability=score.probability, correct=score.correct)
        for seed, score in scores.items()
    ]


def mean_score(scores: Sequence[Score], weights: Sequence[float]) -> Score:
    """Of several VLMs that were asked the same questions."""
    per_question = [
        QuestionScore(
            question=column[0].question,
            answer=column[0].answer,
            probability=mean_probability([one.probability for one in column], weights),
            correct=_mean([one.correct or 0.0 for one in column], weights),
        )
        for column in zip(*(score.questions for score in scores), strict=True)
    ]
    return Score(
        probability=mean_probability([score.probability for score in scores], weights),
        correct=_mean([score.correct for score in scores], weights),
        questions=per_question,
    )


def mean_probability(
    probabilities: Sequence[Probability], weights: Sequence[float] | None = None
) -> Probability:
    return Probability(
        joint=_mean([one.joint for one in probabilities], weights),
        geometric_mean=_mean([one.geometric_mean for one in probabilities], weights),
    )


def _mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    if weights is None:
        return sum(values) / len(values)
    weighted = sum(value * weight for value, weight in zip(values, weights, strict=True))
    return weighted / sum(weights)
