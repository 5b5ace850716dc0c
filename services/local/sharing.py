"""How the models of processes on one GPU are kept in its memory together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.common.extras import has_nf4
from services.common.footprint import recorded
from services.common.footprint.card import GIB, needed, usable
from services.common.footprint.choice import together
from services.common.footprint.footprint import Footprint
from services.common.gpus import Gpu
from services.common.presets import AnyPreset, GeneratorPreset

#: For how many questions about an image there is room.
_QUESTIONS = 5
#: They choose for all models, instead of the presets.
_MEMORY, _QUANTIZE = "DUALPROCESS_MEMORY", "DUALPROCESS_QUANTIZE"


@dataclass(frozen=True)
class Shared:
    """The settings of each process, the most exact ones that fit together: ``None`` where nothing
    is known about one of the models, or nothing fits. ``warning`` says the latter."""

    chosen: Sequence[Footprint] | None = None
    warning: str | None = None


def shared(
    gpu: Gpu, models: Sequence[AnyPreset], slots: int, environment: Mapping[str, str]
) -> Shared:
    """For models that are on ``gpu`` together, each generator with ``slots`` jobs at once. What a
    preset or the environment chooses stays."""
    size = max(model.image.width for model in models if isinstance(model, GeneratorPreset))
    each = [_allowed(model, size, slots, environment) for model in models]
    if gpu.total_mib == 0 or not all(each):
        return Shared()
    room = usable(gpu.total_mib / 1024)
    if chosen := together(each, room):
        return Shared(chosen)
    least = sum(min(needed(one.peak) for one in settings) for settings in each)
    names = " and ".join(model.name for model in models)
    return Shared(
        warning=f"GPU {gpu.index} has {room / GIB:.0f} GiB for models, and {names} need "
        f"{least / GIB:.0f} GiB together for images of {size} pixels, even with the smallest "
        "settings that are allowed; use one GPU for each, or choose smaller models"
    )


def _allowed(
    model: AnyPreset, size: int, slots: int, environment: Mapping[str, str]
) -> list[Footprint]:
    questions = 0 if isinstance(model, GeneratorPreset) else _QUESTIONS
    level = environment.get(_MEMORY) or model.memory
    quantization = environment.get(_QUANTIZE) or model.quantize
    found = recorded.settings(model, size, batch=1, questions=questions)
    if quantization == "float8":
        # It takes what int8 takes.
        found = [
            replace(one, work=replace(one.work, quantize="float8"))
            for one in found
            if one.work.quantize == "int8"
        ]
    return [
        replace(one, step=one.step + (slots - 1) * one.held)
        for one in found
        if level in ("auto", one.work.level)
        and quantization in (None, one.work.quantize)
        and (one.work.quantize != "nf4" or has_nf4())
    ]
