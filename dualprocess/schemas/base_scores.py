"""What is known of a base model before anything is taught."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dualprocess.schemas.fields import Model


class BaseScore(Model):
    """How well a base model, without a LoRA, does already what the questions ask for."""

    vlm: Annotated[str, Field(description="Who scored its images.")]
    images: Annotated[int, Field(description="How many were scored.")]
    probability: Annotated[
        float, Field(description="Probability of the right answers: mean over the images.")
    ]
    best: Annotated[float, Field(description="The same of the best image.")]
    advice: Annotated[
        str | None, Field(description="A sentence, if that says whether a LoRA will help.")
    ] = None
