"""How much the models have to compute for one validated spec.

The unit of ``Work.total`` is one pass of a model over a picture of one megapixel, 2^20 pixels. A
pass of the denoiser and one of the VLM count the same, since both models have some billions of
parameters; so one number limits the time of both. A pass with a gradient counts as three, as is
usual, since the backward pass takes about twice as long as the forward pass.

Everything is counted as the most that it can take. A job takes less if it trains at random
timesteps, ends early, or reuses what the base model predicted. Not counted: the autoencoder, the
LoRA's own layers, files, and what has to be computed again after a failed attempt.

A picture is ``width * height`` pixels. Each character of text counts as 64 pixels, since four
characters are about one token, and one token is about 16 × 16 pixels. ``g`` is 2 with
classifier-free guidance, else 1. ``S`` is ``image.num_inference_steps``; ``T`` is 0 if
``optimizer.timestep`` is ``first``, else S - 1. ``P`` is how many pictures the questions see: the
image itself, and with each of their visual prompts; a VLM reads each once for all questions about
it.

An optimise job::

    images     = optimizer.steps * optimizer.accumulate * optimizer.batch
    training   = images * picture * g * (T + 3 + (1 if guard.anchor else 0))
    teaching   = images * VLMs that teach * 3 * (2 if guard.worst_case else 1) * asked
    previews   = floor(optimizer.steps / eval.every) * 2 * picture * g * S
    evaluation = eval.images * 2 * picture * g * S
    scoring    = eval.images * 2 * (VLMs that teach + judge) * asked
    prompts    = number of prompts * g * 256 * max_sequence_length of the generator
    asked      = picture * P + sum over questions of 64 * characters of question, postfix, answer

An images job::

    pictures = seeds * picture * g * S    (with best_of: all that are drawn)
    scoring  = seeds * asked
    prompts  = g * 256 * max_sequence_length of the generator

A job of words, where each token that a VLM writes is a pass of its own, which uses a device badly::

    answers: sum over questions of picture + 64 * characters + 2^14 * max_new_tokens
    writing: 2 * (picture + 64 * characters of the whole text + 2^14 * 512), for two replies
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dualprocess.schemas import (
    ImageSettings,
    Question,
    ResolvedAnswersSpec,
    ResolvedExpansionSpec,
    ResolvedImagesSpec,
    ResolvedJobSpec,
    ResolvedQuestionsSpec,
    WorkPart,
)
from services.common.presets import GeneratorPreset
from services.orchestrator.writing import tasks

MEGAPIXEL = 2**20
#: Work is stored in thousandths of a unit.
THOUSANDTHS = 1000

_CHARACTER_PIXELS = 64
#: Pixels of a token that is read together with others, and of one that is written.
_READ_PIXELS = 256
_WRITTEN_PIXELS = 2**14
#: A forward pass and its backward pass.
_WITH_GRADIENT = 3
#: Base and LoRA.
_BOTH = 2
#: If a reply can't be used, the VLM is asked once more.
_REPLIES = 2


@dataclass(frozen=True)
class Work:
    """The work of each part, in pixels times passes."""

    parts: Mapping[WorkPart, int]

    @property
    def thousandths(self) -> int:
        """The whole in thousandths of a unit, rounded up."""
        return -(-sum(self.parts.values()) * THOUSANDTHS // MEGAPIXEL)

    @property
    def total(self) -> float:
        return self.thousandths / THOUSANDTHS

    @property
    def largest(self) -> WorkPart:
        return max(self.parts, key=lambda part: self.parts[part])

    def share(self, part: WorkPart) -> float:
        return self.parts[part] / sum(self.parts.values())


def together(several: Iterable[Work]) -> Work:
    """The work of a batch."""
    found: Counter[WorkPart] = Counter()
    for work in several:
        found.update(work.parts)
    return Work(found)


def job_work(spec: ResolvedJobSpec, preset: GeneratorPreset) -> Work:
    """The work of an optimise job on the generator of ``preset``; see above."""
    optimizer, image = spec.optimizer, spec.image
    picture, branches = _pixels(image), _branches(image, preset)
    drawn = picture * branches * image.num_inference_steps
    images = optimizer.steps * optimizer.accumulate * optimizer.batch
    sampled = 0 if optimizer.timestep == "first" else image.num_inference_steps - 1
    step = sampled + _WITH_GRADIENT + bool(spec.guard.anchor)
    asked = _asked(spec, picture)
    looks = _WITH_GRADIENT * (2 if spec.guard.worst_case else 1)
    previews = optimizer.steps // spec.eval.every if spec.eval.every else 0
    readers = len(spec.vlm) + (spec.judge is not None)
    return Work(
        {
            WorkPart.TRAINING: images * picture * branches * step,
            WorkPart.TEACHING: images * len(spec.vlm) * looks * asked,
            WorkPart.PREVIEWS: previews * _BOTH * drawn,
            WorkPart.EVALUATION: spec.eval.images * _BOTH * drawn,
            WorkPart.SCORING: spec.eval.images * _BOTH * readers * asked,
            WorkPart.PROMPTS: len(spec.prompts) * branches * _prompt(preset),
        }
    )


def images_work(spec: ResolvedImagesSpec, preset: GeneratorPreset) -> Work:
    """The work of an images job on the generator of ``preset``; see above."""
    picture, branches = _pixels(spec.image), _branches(spec.image, preset)
    pictures = len(spec.seeds)
    return Work(
        {
            WorkPart.PICTURES: pictures * picture * branches * spec.image.num_inference_steps,
            WorkPart.SCORING: pictures * _asked(spec, picture),
            WorkPart.PROMPTS: branches * _prompt(preset),
        }
    )


def words_work(
    spec: ResolvedAnswersSpec | ResolvedQuestionsSpec | ResolvedExpansionSpec, picture: int | None
) -> Work:
    """The work of a job of words about a picture with ``picture`` pixels; ``None`` if the VLM gets
    a blank one. See above."""
    shown = tasks.BLANK_SIDE**2 if picture is None else picture
    if isinstance(spec, ResolvedAnswersSpec):
        written = spec.max_new_tokens * _WRITTEN_PIXELS
        postfix = len(spec.question_postfix)
        asked = sum(
            shown + _CHARACTER_PIXELS * (len(question) + postfix) + written
            for question in spec.questions
        )
        return Work({WorkPart.WORDS: asked})
    said = len(_task(spec).text) + tasks.NOTE_CHARACTERS
    reply = shown + _CHARACTER_PIXELS * said + tasks.WRITTEN_TOKENS * _WRITTEN_PIXELS
    return Work({WorkPart.WORDS: _REPLIES * reply})


def _task(spec: ResolvedQuestionsSpec | ResolvedExpansionSpec) -> tasks.Task[Any]:
    if isinstance(spec, ResolvedQuestionsSpec):
        return tasks.of_questions(spec)
    return tasks.of_expansion(spec)


class _Asks(Protocol):
    @property
    def questions(self) -> list[Question]: ...
    @property
    def question_postfix(self) -> str: ...


def _asked(spec: _Asks, picture: int) -> int:
    """The pixels of all questions about one picture."""
    postfix = len(spec.question_postfix)
    seen = {
        asked.visual_prompt and asked.visual_prompt.model_dump_json() for asked in spec.questions
    }
    characters = sum(len(asked.question) + len(asked.answer) + postfix for asked in spec.questions)
    return picture * len(seen) + _CHARACTER_PIXELS * characters


def _pixels(image: ImageSettings) -> int:
    return image.width * image.height


def _prompt(preset: GeneratorPreset) -> int:
    """The pixels of a prompt. Most text encoders pad it to the longest that they can read."""
    return preset.max_sequence_length * _READ_PIXELS


def _branches(image: ImageSettings, preset: GeneratorPreset) -> int:
    guided = preset.guidance == "classifier_free" and image.guidance_scale > preset.guidance_above
    return 2 if guided else 1
