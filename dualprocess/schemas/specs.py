"""What a user asks for, and the same with all defaults filled in.

A job shows its resolved spec, so that everybody can see which values it used.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from dualprocess.schemas.fields import (
    NUMBER,
    Deadline,
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
    LoraStart,
    OptimizerOptions,
    OptimizerSettings,
)
from dualprocess.schemas.webhooks import Webhook


class VlmUse(Model):
    """One of several teachers; their losses are averaged by weight."""

    name: Annotated[PresetName, Field(description="Preset of the VLM.")]
    weight: Annotated[
        float,
        Field(
            gt=0,
            le=1000,
            description="How much its loss counts, compared with those of the others.",
        ),
        NUMBER,
    ] = 1.0


Teachers = Annotated[list[VlmUse], Field(min_length=1, max_length=8)]
Judge = Annotated[
    PresetName | None,
    Field(description="A VLM that also scores base and LoRA, and does not teach."),
]


class JobSpec(Model):
    """What a generator should learn. Fields that are left out come from the presets."""

    prompt: Annotated[Text | None, Field(description="What the images should show.")] = None
    prompts: Annotated[
        list[Text] | None,
        Field(
            min_length=1,
            max_length=1000,
            description="Instead of prompt: each step uses one of them, and all are used equally "
            "often. The images of the evaluation use the first.",
        ),
    ] = None
    questions: Questions
    question_postfix: Postfix = DEFAULT_POSTFIX
    generator: Annotated[
        PresetName, Field(description="Preset of the image generator that learns.")
    ]
    vlm: Annotated[
        Annotated[PresetName, Tag(ONE)] | Annotated[Teachers, Tag(SEVERAL)],
        Discriminator(lambda vlm: ONE if isinstance(vlm, str) else SEVERAL),
        Field(description="The teacher: one VLM, or several with weights."),
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
    """A ``JobSpec`` with all defaults filled in. Its webhook is part of the job."""

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


class LoraUse(LoraStart):
    """The LoRA of an ended job, or a file's, with a weight; at 1.0 it acts as it did in its job, or
    as the file does elsewhere."""

    weight: Annotated[
        Weight,
        Field(description="At 1.0 the LoRA acts as it did in its job; at 0 it changes nothing."),
    ] = 1.0


Loras = Annotated[
    list[LoraUse], Field(max_length=8, description="The LoRAs to use; their effects add up.")
]
#: The most images of one request.
MAX_SEEDS = 64
Seeds = Annotated[
    list[Seed], Field(min_length=1, max_length=MAX_SEEDS, description="One image for each.")
]


class ImagesRequest(Model):
    """Images from a prompt, with or without LoRAs and scores."""

    prompt: Annotated[Text, Field(description="What the images should show.")]
    generator: Annotated[PresetName, Field(description="Preset of the image generator that draws.")]
    seeds: Seeds = [0]
    loras: Loras = []
    image: ImageOptions = ImageOptions()
    questions: Annotated[
        list[Question], Field(max_length=32, description="Questions about each image, to score it.")
    ] = []
    question_postfix: Postfix = DEFAULT_POSTFIX
    vlm: Annotated[
        PresetName | None, Field(description="The VLM that answers; needed if there are questions.")
    ] = None
    best_of: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SEEDS,
            description="So many seeds are drawn and scored: those of `seeds`, then others counted "
            "up from the largest. As many images as `seeds` has are kept, those whose right "
            "answers are most probable; `scores.images` lists them, the best first.",
        ),
        NUMBER,
    ] = None
    wait: Annotated[
        float,
        Field(
            ge=0, le=300, description="Seconds to wait for the images before the answer is a 202."
        ),
        NUMBER,
    ] = 30.0


class ResolvedImagesSpec(Model):
    """An ``ImagesRequest`` with all defaults filled in."""

    prompt: Text
    generator: PresetName
    seeds: Seeds
    loras: Loras
    image: ImageSettings
    questions: list[Question]
    question_postfix: Postfix
    vlm: PresetName | None
    keep: Annotated[
        int | None,
        Field(
            description="With `best_of`: `seeds` are all that are drawn, and the best so many "
            "images are kept."
        ),
    ] = None
