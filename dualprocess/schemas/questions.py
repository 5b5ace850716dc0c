"""Questions about an image, and drawings laid over it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from dualprocess.schemas.fields import NUMBER, ImageBytes, Model, Text


class VisualPrompt(Model):
    """A drawing that is laid over the image before its question is asked. It is resized to the
    image's size."""

    image: ImageBytes
    mode: Annotated[
        Literal["solid", "transparent"],
        Field(
            description="solid: every pixel that is not pure white replaces the image's, and a "
            "line keeps its colour when the drawing is resized, however thin it is; "
            "transparent: every pixel becomes half drawing, half image."
        ),
    ] = "solid"


QuestionWeight = Annotated[
    float,
    Field(
        gt=0,
        le=1000,
        description="How much its loss and its probability count, compared with those of the "
        "other questions.",
    ),
    NUMBER,
]


class Question(Model):
    """A question to the VLM about every image, with the right answer."""

    question: Annotated[Text, Field(description="A question about the whole image.")]
    answer: Annotated[
        Text, Field(description="The right answer, in the words that the VLM would use.")
    ]
    visual_prompt: Annotated[
        VisualPrompt | None, Field(description="A drawing that this question is about.")
    ] = None
    weight: QuestionWeight = 1.0


Questions = Annotated[
    list[Question], Field(min_length=1, max_length=32, description="At least one.")
]
Postfix = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=400),
    Field(description="Added to every question, after a space."),
]
DEFAULT_POSTFIX = "Answer with Yes or No."
