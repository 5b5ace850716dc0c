"""The types of the fields in requests and answers: each constraint is defined once."""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote_to_bytes

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)


class Model(BaseModel):
    """The base of every body of the API: an unknown field is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def _not_a_switch(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


#: For each number in a request: YAML reads ``yes`` as true, and Python's true equals 1. It comes
#: after ``Field``, since otherwise pydantic would not document the limits.
NUMBER = BeforeValidator(_not_a_switch)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]
PresetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ArtifactName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{26}$")]
Seed = Annotated[int, Field(ge=0, lt=2**32), NUMBER]

Side = Annotated[int, Field(ge=16, le=4096, description="Pixels."), NUMBER]
InferenceSteps = Annotated[int, Field(ge=1, le=200, description="Steps of the sampler."), NUMBER]
Guidance = Annotated[
    float, Field(ge=0, le=50, description="Scale of the guidance; 0 for none."), NUMBER
]
NegativePrompt = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=4000),
    Field(description="What the image should not show; needs a guidance_scale above 1."),
]

Rank = Annotated[
    int,
    Field(ge=1, le=256, description="Rank of the LoRA; a higher rank makes its file larger."),
    NUMBER,
]
Alpha = Annotated[float, Field(gt=0, le=1024, description="Part of the scale: see weight."), NUMBER]
Weight = Annotated[
    float,
    Field(
        ge=-20,
        le=20,
        description="Strength of the LoRA while it learns: scale = weight × alpha / rank. The "
        "exported file includes this scale.",
    ),
    NUMBER,
]
Modules = Annotated[
    list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]],
    Field(
        min_length=1, max_length=64, description="The layers to adapt, by the ends of their names."
    ),
]
LoraInit = Annotated[
    Literal["gaussian", "kaiming"],
    Field(
        description="How the first of the two matrices is initialised; the second is zero, so "
        "that the LoRA has no effect at first."
    ),
]
LoraDtype = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Field(
        description="Type of the weights in the LoRA's files; it trains in float32. `auto`: "
        "bfloat16 if the generator is bfloat16, else float32."
    ),
]

Steps = Annotated[int, Field(ge=1, le=10_000, description="Optimiser steps."), NUMBER]
Batch = Annotated[int, Field(ge=1, le=64, description="Images in one denoiser call."), NUMBER]
Accumulate = Annotated[int, Field(ge=1, le=64, description="Denoiser calls in one step."), NUMBER]
LearningRate = Annotated[float, Field(gt=0, le=1, description="Of AdamW."), NUMBER]
WeightDecay = Annotated[float, Field(ge=0, le=1, description="Of AdamW."), NUMBER]
GradNorm = Annotated[
    float, Field(gt=0, le=1e6, description="The gradient's norm is clipped to this."), NUMBER
]
NoiseSeeds = Annotated[
    int | None,
    Field(ge=1, le=10_000, description="The noise repeats after this many steps; null: never."),
    NUMBER,
]
TrainSeed = Annotated[
    Seed,
    Field(
        description="Seed of the LoRA's initial weights, the noise, the timesteps and the "
        "order of the prompts."
    ),
]
Timestep = Annotated[
    Literal["random", "first", "last"],
    Field(
        description="The timestep of the sampler at which a step trains. `first`: no denoiser call "
        "comes before it, so a step takes less time; `random` draws one for each step."
    ),
]
CheckpointEvery = Annotated[
    int,
    Field(
        ge=0,
        le=10_000,
        description="A checkpoint is made each time this many steps are done. An interrupted job "
        "goes on from its last checkpoint; with 0 it starts again from the beginning.",
    ),
    NUMBER,
]

EvalImages = Annotated[
    int, Field(ge=1, le=64, description="Number of images rendered and scored at the end."), NUMBER
]
EvalSeed = Annotated[
    Seed, Field(description="Seed of the first of these images; the others count up from it.")
]
EvalEvery = Annotated[
    int,
    Field(ge=0, le=10_000, description="A preview each time this many steps are done; 0: none."),
    NUMBER,
]

Anchor = Annotated[
    float,
    Field(
        ge=0,
        le=1000,
        description="Weight, in the loss, of the distance between an image and the one that the "
        "base model draws of the same noise. It has its full effect when the answers "
        "are right, and almost none while they are wrong. 0: off.",
    ),
    NUMBER,
]
Margin = Annotated[
    float,
    Field(
        gt=0,
        le=1,
        description="An answer whose probability has reached this value gives no more gradient; "
        "1: off.",
    ),
    NUMBER,
]
WorstCase = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="The image is moved by this distance to where the answers are worst, and the "
        "VLM's gradient is taken there. The distance is the root mean square of the "
        "change of values in [-1, 1]. 0: at the image itself. Costs the VLM a second "
        "pass.",
    ),
    NUMBER,
]

StopAtScore = Annotated[
    float | None,
    Field(
        gt=0,
        le=1,
        description="The job ends early as succeeded, once the probability of each right answer "
        "was at least this in three steps in a row, each with noise that no earlier "
        "step had.",
    ),
    NUMBER,
]
Deadline = Annotated[
    float | None,
    Field(
        gt=0,
        le=365 * 86400,
        description="Seconds from the submission. After that a queued job fails; a running one "
        "stops after its current step, exports what it learned and is cancelled.",
    ),
    NUMBER,
]


_DATA_URL = re.compile(r"\s*data:[^,]*,", re.IGNORECASE)
#: Characters, or bytes, of a file that are decoded or encoded at once: between two pieces other
#: threads can go on. A multiple of three, since base64 encodes bytes in groups of three.
_PIECE = 3 << 14
#: More characters than any text field allows.
_LONG = 1 << 14
#: The most characters of a data: URL that may be written with %. Some programs write + / = so,
#: which is 1 character in 32 of the largest file.
_MAX_ESCAPES = 2_000_000


class LongText(str):
    """A text in ``pieces`` of ASCII, longer than any field allows except those of files.

    For all other fields its value is some other text that is too long, so the pieces never have to
    be joined.
    """

    pieces: Sequence[str]

    def __new__(cls, pieces: Sequence[str]) -> Self:
        text = super().__new__(cls, "…" * _LONG)
        text.pieces = pieces
        return text


def is_data_url(text: str) -> bool:
    return _DATA_URL.match(text[:_PIECE]) is not None


def _from_base64(kind: str) -> BeforeValidator:
    def decode(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return _base64_bytes(value)
        except ValueError:
            raise ValueError(f"must be a {kind} file in base64, or a data: URL of one") from None

    return BeforeValidator(decode)


def _base64_bytes(text: str) -> bytes:
    """Reads base64 as mail, browsers and command lines write it: on one or several lines, in either
    alphabet, with or without padding. Raises ``ValueError``."""
    decoded: list[bytes] = []
    rest = ""
    for piece in _payload(text):
        # All but the last group of four, which may lack its padding.
        rest += piece
        whole = max(len(rest) - 1, 0) // 4 * 4
        if "=" in rest[:whole]:
            raise ValueError("continues after its end")
        decoded.append(binascii.a2b_base64(rest[:whole], strict_mode=True))
        rest = rest[whole:]
    decoded.append(binascii.a2b_base64(rest + "=" * (-len(rest) % 4), strict_mode=True))
    return b"".join(decoded)


def _payload(text: str) -> Iterator[str]:
    """The base64 in pieces, in the standard alphabet, without spaces."""
    pieces = _of_a_size(text.pieces if isinstance(text, LongText) else [text])
    first = next(pieces, "")
    prefix = _DATA_URL.match(first)
    begin = prefix.end() if prefix else 0
    whole = itertools.chain([first[begin:]], pieces)
    for piece in _unescaped(whole) if prefix else whole:
        yield "".join(piece.split()).replace("-", "+").replace("_", "/")


def _of_a_size(pieces: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of equal length; only the last one may be shorter."""
    rest = ""
    for piece in pieces:
        rest += piece
        for begin in range(0, len(rest) - _PIECE + 1, _PIECE):
            yield rest[begin : begin + _PIECE]
        rest = rest[len(rest) // _PIECE * _PIECE :]
    if rest:
        yield rest


def _unescaped(pieces: Iterable[str]) -> Iterator[str]:
    """Decodes what a URL writes like %2F. Raises ``ValueError``."""
    rest = ""
    escapes = 0
    for piece in pieces:
        escapes += piece.count("%")
        if escapes > _MAX_ESCAPES:
            raise ValueError("has more characters written with % than base64 needs")
        whole = rest + piece
        # An escape that is cut off at the end of a piece is decoded with the next piece.
        cut = whole.rfind("%", -2)
        end = len(whole) if cut < 0 else cut
        yield unquote_to_bytes(whole[:end]).decode("ascii")
        rest = whole[end:]
    yield unquote_to_bytes(rest).decode("ascii")


def _to_base64(raw: bytes) -> str:
    pieces = range(0, len(raw), _PIECE)
    return "".join(base64.b64encode(raw[at : at + _PIECE]).decode() for at in pieces)


_TO_BASE64 = PlainSerializer(_to_base64, return_type=str, when_used="json")
_BASE64_SCHEMA = WithJsonSchema({"type": "string", "contentEncoding": "base64"})

#: An encoded image: ``bytes`` in Python, base64 in JSON.
ImageBytes = Annotated[
    bytes,
    _from_base64("picture"),
    _TO_BASE64,
    _BASE64_SCHEMA,
    Field(
        description="A PNG, JPEG, GIF, WebP or AVIF file in base64, or a data: URL of one. It is "
        "rotated as its EXIF orientation says."
    ),
]
#: A safetensors file: ``bytes`` in Python, base64 in JSON.
SafetensorsBytes = Annotated[bytes, _from_base64("safetensors"), _TO_BASE64, _BASE64_SCHEMA]


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=1000)],
    ],
    Field(max_length=32, description="Your own data, returned unchanged."),
]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    Field(description="A name for people, shown in lists and reports."),
]
