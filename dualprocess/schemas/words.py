"""Requests to a VLM, or a language model, for its own words, and the results."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from dualprocess.schemas.fields import NUMBER, ImageBytes, Model, PresetName, Text
from dualprocess.schemas.questions import Postfix, VisualPrompt

DEFAULT_QUESTION_INSTRUCTIONS = (
    "You help to teach an image generator. From the prompt of an image, write short questions "
    "that anyone can answer with Yes or No by looking at the image, each with the answer that "
    "is right when the image shows what the prompt means. Ask about one visible thing at a time: "
    "an object, a number, a colour, a size, a place, or what common sense expects there and a "
    "careless image gets wrong. Ask about nothing that can't be seen, and nothing twice."
)
DEFAULT_EXPANSION_INSTRUCTIONS = (
    "You help to draw an image. Rewrite its prompt as one paragraph of at most 80 words for an "
    "image generator. Keep everything that the prompt says; add what an eye would see: the "
    "subject's details, the surroundings, the light, the colours, the composition. Add no new "
    "subject, no list and no quotation marks."
)

#: More pairs than these would not fit into one reply of a VLM.
MAX_WRITTEN_QUESTIONS = 10

Wait = Annotated[
    float,
    Field(
        # True or false is not a number of seconds.
        strict=True,
        ge=0,
        le=300,
        description="Seconds to wait. After that the answer is a 202 for a VLM, whose job goes "
        "on, and a 504 for the service's language model.",
    ),
    NUMBER,
]
Instructions = Annotated[
    Text,
    Field(
        description="Instructions to the writer, without the form of its reply, which is "
        "always added."
    ),
]
Writer = Annotated[
    PresetName | None,
    Field(
        description="The VLM that writes. By default the service's language model writes, if it "
        "has one: see `writer` of GET /v1/models."
    ),
]
AskedTexts = Annotated[list[Text], Field(min_length=1, max_length=16)]
NewTokens = Annotated[
    int, Field(ge=1, le=512, description="The longest answer, in tokens."), NUMBER
]
Count = Annotated[
    int,
    Field(ge=1, le=MAX_WRITTEN_QUESTIONS, description="The most questions; there may be fewer."),
    NUMBER,
]


class DraftQuestion(Model):
    """A written question with its right answer."""

    question: Text
    answer: Text
    on_drawing: Annotated[
        bool,
        Field(
            strict=True,
            description="Whether the question is about the image with the drawing over it.",
        ),
    ] = False


class AnswersRequest(Model):
    """Questions about an image, which the VLM answers in its own words."""

    image: ImageBytes
    questions: AskedTexts
    question_postfix: Postfix = ""
    vlm: PresetName
    max_new_tokens: NewTokens = 64
    wait: Wait = 30.0


class QuestionsRequest(Model):
    """A request for questions about images of a prompt, with or without a drawing."""

    prompt: Text
    count: Count = 5
    visual_prompt: VisualPrompt | None = None
    first: Annotated[
        DraftQuestion | None,
        Field(
            description="A question of your own: it stays unchanged, and counts as one of `count`."
        ),
    ] = None
    instructions: Instructions = DEFAULT_QUESTION_INSTRUCTIONS
    vlm: Writer = None
    wait: Wait = 60.0

    @field_validator("first")
    @classmethod
    def _fits(cls, first: DraftQuestion | None, info: ValidationInfo) -> DraftQuestion | None:
        # Fields that are wrong themselves are missing here.
        if first and first.on_drawing and info.data.get("visual_prompt", first) is None:
            raise ValueError("is about a drawing; send the drawing as visual_prompt")
        if first and info.data.get("count") == 1:
            raise ValueError(
                "needs a count of 2 or more, since one of the questions restates the prompt"
            )
        return first


class ExpansionRequest(Model):
    """A prompt to make longer."""

    prompt: Text
    generator: Annotated[
        PresetName | None,
        Field(
            description="The generator that will draw it: the prompt gets no longer than it "
            "can read."
        ),
    ] = None
    instructions: Instructions = DEFAULT_EXPANSION_INSTRUCTIONS
    vlm: Writer = None
    wait: Wait = 60.0


class ResolvedAnswersSpec(Model):
    """An ``AnswersRequest`` as its job stores it: the image is the artifact ``image.png``."""

    vlm: PresetName
    questions: AskedTexts
    question_postfix: Postfix
    max_new_tokens: NewTokens


class ResolvedQuestionsSpec(Model):
    """A ``QuestionsRequest`` as its job stores it: a drawing is the artifact ``image.png``."""

    vlm: PresetName
    prompt: Text
    count: Count
    drawing: bool
    first: DraftQuestion | None
    instructions: Instructions


class ResolvedExpansionSpec(Model):
    """An ``ExpansionRequest`` as its job stores it."""

    vlm: PresetName
    prompt: Text
    generator: PresetName | None = None
    most_words: Annotated[
        int | None, Field(description="About as many words as the generator can read.")
    ] = None
    instructions: Instructions


class Answers(Model):
    answers: Annotated[list[str], Field(description="One for each question, in their order.")]


class WrittenQuestions(Model):
    questions: Annotated[
        list[DraftQuestion],
        Field(description="The first question restates the prompt; no question comes twice."),
    ]


class ExpandedPrompt(Model):
    prompt: Text
