"""Limits that are checked both by the REST API and by the gRPC services."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from services.common.presets import GeneratorPreset

#: Bytes of one message, in both directions of every gRPC call. A gradient of 4 images of 1024² in
#: float32 is 48 MiB.
MESSAGE_LIMIT = 64 * 1024 * 1024

#: Characters of a prompt, a question or an answer, as in the REST API. The time of a text encoder
#: grows with the square of this.
MAX_TEXT = 4000
#: Images of one call, of either service.
MAX_IMAGES = 64
#: LoRAs of one image, teachers of one job.
MAX_LORAS = 8
MAX_TEACHERS = 8

#: Kept free for the answers that come back with a gradient.
_ANSWERS_BYTES = 4 * 1024 * 1024
#: More bytes than a message needs around a question or the images.
_FRAME_BYTES = 256

_DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class ImageLike(Protocol):
    """``ImageSettings`` of the REST API, or ``ImageSpec`` of gRPC."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def guidance_scale(self) -> float: ...
    @property
    def negative_prompt(self) -> str: ...


class GuardLike(Protocol):
    """``GuideGuard`` or ``GuardSpec`` of gRPC."""

    @property
    def margin(self) -> float: ...
    @property
    def worst_case(self) -> float: ...


class DrawingLike(Protocol):
    @property
    def image(self) -> bytes: ...


class QuestionLike(Protocol):
    """``Question`` of the REST API or of gRPC. In gRPC an empty drawing means that there is
    none."""

    @property
    def question(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def visual_prompt(self) -> DrawingLike | None: ...


def image_faults(preset: GeneratorPreset, image: ImageLike) -> Iterator[tuple[str, str]]:
    """Each field of ``image`` with a value that the generator can't use, with the remedy."""
    for field, side in (("width", image.width), ("height", image.height)):
        if not preset.sides.allows(side):
            nearest = " or ".join(str(near) for near in preset.sides.nearest(side))
            yield field, f"{preset.name} can't do {side} pixels; try {nearest}"
    if preset.guidance == "none" and image.guidance_scale != 0:
        yield (
            "guidance_scale",
            f"{preset.name} has no guidance; leave the field out, or write 0",
        )
    if image.negative_prompt and preset.guidance != "classifier_free":
        yield "negative_prompt", f"{preset.name} can't use a negative prompt; leave the field out"
    elif image.negative_prompt and image.guidance_scale <= preset.guidance_above:
        yield (
            "negative_prompt",
            f"has no effect at a guidance_scale of {image.guidance_scale:g}; "
            f"write one above {preset.guidance_above:g}",
        )


def guard_faults(guard: GuardLike) -> Iterator[tuple[str, str]]:
    """Each field of ``guard`` with a value that a VLM can't use."""
    if not 0 <= guard.margin < 1:
        yield "guard.margin", "must be a probability below 1, or 0 for none"
    if not 0 <= guard.worst_case <= 1:
        yield "guard.worst_case", "must be between 0 and 1; images lie in [-1, 1]"


def text_fault(text: str) -> str | None:
    """Why a text is too long, if it is."""
    if len(text) <= MAX_TEXT:
        return None
    return f"has {len(text)} characters; write at most {MAX_TEXT}"


def batch_fault(
    preset: GeneratorPreset,
    image: ImageLike,
    batch: int,
    questions: Sequence[QuestionLike],
    postfix: str,
) -> tuple[str, str] | None:
    """The field, and why ``batch`` images of this size don't fit into one message to a VLM together
    with the questions. ``None`` if they fit."""
    image_bytes = 3 * image.height * image.width * _DTYPE_BYTES[preset.dtype]
    asked_bytes = _asked_bytes(questions, postfix)
    largest = (MESSAGE_LIMIT - max(_ANSWERS_BYTES, asked_bytes)) // image_bytes
    if batch <= largest:
        return None
    fault = f"don't fit into one message of {MESSAGE_LIMIT >> 20} MiB"
    size = f"{image.width} × {image.height}"
    asked = f"questions and drawings of {asked_bytes / 2**20:.1f} MiB"
    if asked_bytes <= _ANSWERS_BYTES:
        message = f"{batch} images of {size} {fault}"
        return "optimizer.batch", f"{message}; write at most {largest}, and make accumulate larger"
    if largest < 1:
        message = f"{asked} and one image of {size} {fault}"
        return "questions", f"{message}; send smaller drawings, or fewer"
    message = f"{batch} images of {size} {fault} with {asked}"
    return (
        "optimizer.batch",
        f"{message}; write at most {largest} and make accumulate larger, or send smaller drawings",
    )


def _asked_bytes(questions: Sequence[QuestionLike], postfix: str) -> int:
    drawings = [asked.visual_prompt.image for asked in questions if asked.visual_prompt]
    texts = [postfix, *(text for asked in questions for text in (asked.question, asked.answer))]
    frames = _FRAME_BYTES * (len(questions) + 1)
    return frames + sum(map(len, drawings)) + sum(len(text.encode()) for text in texts)
