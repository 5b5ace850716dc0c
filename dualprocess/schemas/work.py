"""How much the models have to compute for a request: the unit and the parts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import Field

WorkUnits: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        description="The most that the models have to compute. The unit is one pass of denoiser or "
        "VLM over a picture of one megapixel; a backward pass counts as two.",
    ),
]


class WorkPart(StrEnum):
    """The parts of a request's work."""

    TRAINING = "training"
    TEACHING = "teaching"
    PREVIEWS = "previews"
    EVALUATION = "evaluation"
    PICTURES = "pictures"
    SCORING = "scoring"
    PROMPTS = "prompts"
    WORDS = "words"
