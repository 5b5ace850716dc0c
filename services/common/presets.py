"""Presets: what each generator and VLM is, how it is loaded, and its defaults.

One YAML file a preset, in ``generators/`` and ``vlms/`` of one directory: ``presets/`` of the
checkout, unless settings name another. A relative ``model`` that begins with ``./`` is a folder
beside that directory; anything else is a hub id or an absolute folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dualprocess.schemas import (
    EvalSettings,
    GuardSettings,
    ImageSettings,
    License,
    LoraSettings,
    OptimizerSettings,
)
from services.common.memory import MemoryChoice, Quantization

DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2] / "presets"

#: The guard of a preset that sets none. The tiny pair's measurements support it
#: (models/training/README.md).
GUARD = GuardSettings(anchor=1.8, margin=0.95, worst_case=0.05)

DtypeName = Literal["float32", "float16", "bfloat16"]
_BYTES: Mapping[str, float] = {"float32": 4, "float16": 2, "bfloat16": 2}
#: Of a large model, whose embeddings and heads stay as they are.
_QUANTIZED_BYTES: Mapping[Quantization, float] = {"int8": 1.1, "float8": 1.1, "nf4": 0.65}


class PresetError(ValueError):
    """A preset file that can't be used, or a name without a file."""


class _Preset(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str
    family: str
    model: str
    #: The commit on the hub that is loaded; without it, the newest one.
    revision: str | None = None
    dtype: DtypeName
    #: Of all parts together, also text encoders and autoencoder: the device holds all at once.
    billions_of_parameters: Annotated[float, Field(ge=0)] = 0.0
    #: What is computed again to save memory; `auto`: as little as the device allows.
    memory: MemoryChoice = "auto"
    #: Whether a GPU runs what comes again from recordings, while it has memory to spare. For VLMs
    #: this was measured; for generators it is to be tried.
    recordings: bool = False
    #: Numbers of the frozen weights, if they are to be smaller than `dtype`.
    quantize: Quantization | None = None

    @property
    def is_on_hub(self) -> bool:
        """Whether its weights are downloaded; else they are in a folder of this machine."""
        return not Path(self.model).is_absolute()

    @property
    def weights_gib(self) -> float:
        """Memory for the weights on a device; 0 if the preset does not say. Images, gradients and
        LoRAs need more."""
        each = _QUANTIZED_BYTES[self.quantize] if self.quantize else _BYTES[self.dtype]
        return self.billions_of_parameters * 1e9 * each / 2**30


class Sides(BaseModel):
    """Widths and heights that a generator can draw."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    multiple_of: Annotated[int, Field(ge=1)]
    minimum: Annotated[int, Field(ge=1)]
    maximum: Annotated[int, Field(ge=1)]

    def allows(self, side: int) -> bool:
        return self.minimum <= side <= self.maximum and side % self.multiple_of == 0

    def nearest(self, side: int) -> list[int]:
        """The one or two allowed sides nearest to ``side``, smaller first."""
        below = side // self.multiple_of * self.multiple_of
        first = -(-self.minimum // self.multiple_of) * self.multiple_of
        last = self.maximum // self.multiple_of * self.multiple_of
        return sorted({min(max(near, first), last) for near in (below, below + self.multiple_of)})


class GeneratorPreset(_Preset):
    sides: Sides
    #: `distilled`: the denoiser takes the scale as an input; `classifier_free`: it runs for prompt
    #: and negative prompt, if the scale asks for that; `none`: there is no guidance.
    guidance: Literal["none", "distilled", "classifier_free"]
    #: Above this scale classifier-free guidance is on.
    guidance_above: Annotated[float, Field(ge=0)] = 1.0
    max_sequence_length: Annotated[int, Field(ge=1)] = 512
    #: Whether the denoiser's repeated blocks are compiled: the first steps take minutes longer.
    compile_blocks: bool = False
    #: For the model cards of its LoRAs.
    license: License | None = None
    image: ImageSettings
    lora: LoraSettings
    optimizer: OptimizerSettings = OptimizerSettings()
    guard: GuardSettings = GUARD
    eval: EvalSettings = EvalSettings()


#: The family of a VLM that is a service of somebody's own: docs/teachers.md.
EXTERNAL = "external"
_NO_MODEL: Mapping[str, object] = {"model": "", "dtype": "float32", "chat": "", "writes": False}


class VlmPreset(_Preset):
    """With the family ``EXTERNAL`` it has no weights, and needs no other field."""

    #: The conversation around ``{image}`` and ``{question}``, up to the place where the answer
    #: begins.
    chat: str
    #: How many conversations (an image with a question) go through the text model in one pass;
    #: memory limits this. More are done in several passes, with the same result. Those about one
    #: image share their beginning, and take less memory than as many about several.
    conversations_at_once: Annotated[int, Field(ge=1)] = 32
    recordings: bool = True
    #: Whether the VLM knows enough language to write questions and prompts.
    writes: bool = True

    @model_validator(mode="before")
    @classmethod
    def _without_weights(cls, data: dict[str, object]) -> dict[str, object]:
        if data.get("family") != EXTERNAL:
            return data
        if extra := [name for name in ("model", "revision", "dtype", "chat") if name in data]:
            raise ValueError(
                f"{extra[0]}: a preset of the family external has no model; leave it out"
            )
        return {**_NO_MODEL, **data}

    @property
    def is_external(self) -> bool:
        return self.family == EXTERNAL

    @property
    def is_on_hub(self) -> bool:
        return not self.is_external and super().is_on_hub


AnyPreset: TypeAlias = GeneratorPreset | VlmPreset


@dataclass(frozen=True)
class Presets:
    generators: Mapping[str, GeneratorPreset]
    vlms: Mapping[str, VlmPreset]

    def generator(self, name: str) -> GeneratorPreset:
        return _named(self.generators, name, "generator")

    def vlm(self, name: str) -> VlmPreset:
        return _named(self.vlms, name, "VLM")


def load_presets(directory: Path = DEFAULT_DIRECTORY) -> Presets:
    """Reads every preset below ``directory``. Raises ``PresetError`` for one that is wrong."""
    if not directory.is_dir():
        raise PresetError(f"the presets directory {directory} does not exist")
    # A relative model lies beside this directory, also if it is given as `.`.
    directory = directory.resolve()
    return Presets(
        generators=_load_all(directory / "generators", GeneratorPreset),
        vlms=_load_all(directory / "vlms", VlmPreset),
    )


PresetT = TypeVar("PresetT", bound=_Preset)

#: libyaml's, which takes a sixth of the time. Every process reads all presets when it starts.
_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load_all(directory: Path, model: type[PresetT]) -> dict[str, PresetT]:
    presets = [_load(path, model) for path in sorted(directory.glob("*.yaml"))]
    return {preset.name: preset for preset in presets}


def _load(path: Path, model: type[PresetT]) -> PresetT:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _SAFE_LOADER)  # noqa: S506
        preset = model.model_validate({"name": path.stem, **data})
    except (yaml.YAMLError, TypeError, ValidationError) as error:
        raise PresetError(f"{path}: {error}") from error
    if preset.model.startswith("./"):
        folder = path.parents[2] / preset.model
        preset = preset.model_copy(update={"model": str(folder)})
    return preset


def _named(presets: Mapping[str, PresetT], name: str, kind: str) -> PresetT:
    if name not in presets:
        raise PresetError(f"{kind} {name!r} is unknown: choose one of {', '.join(presets)}")
    return presets[name]
