"""How much the models have to compute for a request: what it is counted in, and how it is told."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from pydantic import Field

from dualprocess.schemas.fields import Model

WorkUnits: TypeAlias = Annotated[
    float,
    Field(
        ge=0,
        description="The most that the models have to compute, in passes over a picture of a "
        "megapixel: denoiser and VLM, a pass back counted as two.",
    ),
]


class WorkPart(StrEnum):
    """What the work of a request is for."""

    TRAINING = "training"
    TEACHING = "teaching"
    PREVIEWS = "previews"
    EVALUATION = "evaluation"
    PICTURES = "pictures"
    SCORING = "scoring"
    PROMPTS = "prompts"
    WORDS = "words"


class DryRun(Model):
    """What a request would come to. It was checked as always, and nothing was queued."""

    jobs: Annotated[int, Field(description="How many jobs it would make.")]
    work: WorkUnits
    parts: Annotated[
        dict[WorkPart, WorkUnits], Field(description="What the work is for; its sum is `work`.")
    ]
    quota: Annotated[
        int | None,
        Field(description="Work that the key's jobs may have before they end; null: no limit."),
    ] = None
    left: Annotated[
        float | None,
        Field(description="What the quota leaves now; a request of more is a 429 for now."),
    ] = None
    warnings: Annotated[
        list[str], Field(description="What the job's own `warnings` would say from the start.")
    ] = []
