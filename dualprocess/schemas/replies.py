"""What the routes that ask for words answer: the words, or the job that will have them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dualprocess.schemas.fields import Model, Text
from dualprocess.schemas.jobs import Job
from dualprocess.schemas.words import DraftQuestion

_JobThere = Annotated[
    Job | None,
    Field(description="The VLM's job; null where the service's language model wrote."),
]
_UNTIL = "Null until the job is done, which then has it as `result`."


class AnswersReply(Model):
    answers: Annotated[list[str] | None, Field(description=f"One a question. {_UNTIL}")]
    job: _JobThere


class QuestionsReply(Model):
    questions: Annotated[
        list[DraftQuestion] | None,
        Field(description=f"The first one restates the prompt; none comes twice. {_UNTIL}"),
    ]
    job: _JobThere


class ExpansionReply(Model):
    prompt: Annotated[Text | None, Field(description=_UNTIL)]
    warnings: Annotated[
        list[str], Field(description="Where the prompt is longer than its generator reads.")
    ] = []
    job: _JobThere
