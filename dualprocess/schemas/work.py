"""How much the models have to compute for a request: the unit, the parts, and dry runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import Field

from dualprocess.schemas.base_scores import BaseScore
from dualprocess.schemas.fields import Model

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


class DryRun(Model):
    """How much work a request is. It was checked like a real one, and nothing was queued."""

    jobs: Annotated[int, Field(description="How many jobs it would make.")]
    work: WorkUnits
    parts: Annotated[
        dict[WorkPart, WorkUnits], Field(description="The work of each part; their sum is `work`.")
    ]
    quota: Annotated[
        int | None,
        Field(description="Work that the key's unfinished jobs may have together; null: no limit."),
    ] = None
    left: Annotated[
        float | None,
        Field(description="What is left of the quota now; a request with more gets a 429 for now."),
    ] = None
    warnings: Annotated[
        list[str], Field(description="The `warnings` that the job would have from the start.")
    ] = []
    base: Annotated[
        BaseScore | None, Field(description="The `base` that the job would have from the start.")
    ] = None
