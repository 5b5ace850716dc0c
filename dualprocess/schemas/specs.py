"""What a user asks for, and the same with nothing left to a default.

A job shows its resolved spec, so nobody has to guess which values ran.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from dualprocess.schemas.fields import (
    NUMBER,
    Deadline,
    JobId,
    Metadata,
    Model,
    Name,
    PresetName,
    Seed,
    StopAtScore,
    Text,
    Weight,
)
from dualprocess.schemas.problems import ONE, SEVERAL
from dualprocess.schemas.questions import DEFAULT_POSTFIX, Postfix, Question, Questions
from dualprocess.schemas.settings import (
    EvalOptions,
    EvalSettings,
    Guard,
    GuardOptions,
    GuardSettings,
    ImageOptions,
    ImageSettings,
    JobLoraSettings,
    LoraOptions,
    OptimizerOptions,
    OptimizerSettings,
)
from dualprocess.schemas.webhooks import Webhook


class VlmUse(Model):
    """One teacher of several: losses are averaged by weight."""

    name: Annotated[PresetName, Field(description="Which VLM.")]
    weight: Annotated[
        float,
        Field(gt=0, le=1000, description="How much its loss counts beside the others'."),
        NUMBER,
    ] = 1.0


Teachers = Annotated[list[VlmUse], Field(min_length=1, max_length=8)]
Judge = Annotated[
    PresetName | None,
    Field(description="A VLM that scores base and LoRA as well, and takes no part in teaching."),
]


class JobSpec(Model):
    """What a generator should learn. What is left out comes from the presets."""

    prompt: Annotated[Text | None, Field(description="What the images are of.")] = None
    prompts: Annotated[
        list[Text] | None,
        Field(
            min_length=1,
            max_length=1000,
            description="In place of prompt: one a step, each as often as the others. The images "
            "of the evaluation are of the first.",
        ),
    ] = None
    questions: Questions
    question_postfix: Postfix = DEFAULT_POSTFIX
    generator: Annotated[PresetName, Field(description="Which image generator learns.")]
    vlm: Annotated[
        Annotated[PresetName, Tag(ONE)] | Annotated[Teachers, Tag(SEVERAL)],
        Discriminator(lambda vlm: ONE if isinstance(vlm, str) else SEVERAL),
        Field(description="Who teaches: one VLM, or several with weights."),
    ]
    judge: Judge = None
    image: ImageOptions = ImageOptions()
    lora: LoraOptions = LoraOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    guard: Guard = GuardOptions()
    eval: EvalOptions = EvalOptions()
    stop_at_score: StopAtScore = None
    deadline: Deadline = None
    webhook: Webhook | None = None
    name: Name | None = None
    metadata: Metadata = {}


class ResolvedJobSpec(Model):
    """A ``JobSpec`` with nothing left to a default; its webhook is the job's own affair."""

    prompts: list[Text]
    questions: Questions
    question_postfix: Postfix
    generator: PresetName
    vlm: Teachers
    judge: Judge
    image: ImageSettings
    lora: JobLoraSettings
    optimizer: OptimizerSettings
    guard: GuardSettings = GuardSettings()
    eval: EvalSettings
    stop_at_score: StopAtScore = None
    deadline: Deadline = None
    name: Name | None = None
    metadata: Metadata = {}


class LoraUse(Model):
    """The LoRA of a finished job, at a weight; 1.0 is what the job itself saw."""

    job: Annotated[JobId, Field(description="A job that has left a LoRA.")]
    weight: Annotated[
        Weight, Field(description="1.0 is what the job itself saw; 0 changes nothing.")
    ] = 1.0


Loras = Annotated[
    list[LoraUse], Field(max_length=8, description="Those to draw with; their effects add up.")
]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=64, description="An image for each.")]


class ImagesRequest(Model):
    """Images from a prompt, perhaps with LoRAs, perhaps scored."""

    prompt: Annotated[Text, Field(description="What the images are of.")]
    generator: Annotated[PresetName, Field(description="Which image generator draws.")]
    seeds: Seeds = [0]
    loras: Loras = []
    image: ImageOptions = ImageOptions()
    questions: Annotated[
        list[Question], Field(max_length=32, description="Asked of each image, to score it.")
    ] = []
    question_postfix: Postfix = DEFAULT_POSTFIX
    vlm: Annotated[PresetName | None, Field(description="Needed when questions come along.")] = None
    wait: Annotated[
        float,
        Field(ge=0, le=300, description="Seconds to wait for the images before a 202."),
        NUMBER,
    ] = 30.0


class ResolvedImagesSpec(Model):
    """An ``ImagesRequest`` with nothing left to a default."""

    prompt: Text
    generator: PresetName
    seeds: Seeds
    loras: Loras
    image: ImageSettings
    questions: list[Question]
    question_postfix: Postfix
    vlm: PresetName | None
