"""Questions about an image, and drawings laid over it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from dualprocess.schemas.fields import NUMBER, ImageBytes, Model, Text


class VisualPrompt(Model):
    """A drawing laid over the image before its question is asked. It is resized to the image."""

    image: ImageBytes
    mode: Annotated[
        Literal["solid", "transparent"],
        Field(
            description="solid: every pixel that is not pure white replaces the image's, and when "
            "it is resized a line keeps its colour, however thin; transparent: half drawing, half "
            "image, everywhere."
        ),
    ] = "solid"


QuestionWeight = Annotated[
    float,
    Field(
        gt=0,
        le=1000,
        description="How much its loss and its probability count beside the other questions'.",
    ),
    NUMBER,
]


class Question(Model):
    """What the VLM is asked about every image, and what it should answer."""

    question: Annotated[Text, Field(description="About the image as a whole.")]
    answer: Annotated[
        Text, Field(description="The right one, in the words that the VLM would use.")
    ]
    visual_prompt: Annotated[
        VisualPrompt | None, Field(description="A drawing that this question speaks of.")
    ] = None
    weight: QuestionWeight = 1.0


Questions = Annotated[
    list[Question], Field(min_length=1, max_length=32, description="At least one.")
]
Postfix = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=400),
    Field(description="Appended to every question after a space."),
]
DEFAULT_POSTFIX = "Answer with Yes or No."
