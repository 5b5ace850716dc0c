"""The answers of the routes that ask for words: the words, or the job that will produce them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dualprocess.schemas.fields import Model, Text
from dualprocess.schemas.jobs import Job
from dualprocess.schemas.words import DraftQuestion

_JobThere = Annotated[
    Job | None,
    Field(description="The VLM's job; null if the service's language model wrote."),
]
_UNTIL = "Null until the job is done; then it is the job's `result`."


class AnswersReply(Model):
    answers: Annotated[list[str] | None, Field(description=f"One for each question. {_UNTIL}")]
    job: _JobThere


class QuestionsReply(Model):
    questions: Annotated[
        list[DraftQuestion] | None,
        Field(
            description=f"The first question restates the prompt; no question comes twice. {_UNTIL}"
        ),
    ]
    job: _JobThere


class ExpansionReply(Model):
    prompt: Annotated[Text | None, Field(description=_UNTIL)]
    warnings: Annotated[
        list[str],
        Field(description="Warnings if the prompt is longer than its generator can read."),
    ] = []
    job: _JobThere
