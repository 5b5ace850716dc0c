"""Settings of a model's own sampler (``scheduler/scheduler_config.json``): unsupported ones are
refused when the model is loaded, so that no picture silently differs from the plain pipeline's."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from services.common.presets import GeneratorPreset, PresetError

_FILE = "scheduler/scheduler_config.json"

#: The settings that change noise levels, times or x0, with the values at which they change nothing.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "clip_sample": (None, False),
    "interpolation_type": (None, "linear"),
    "sigma_max": (None,),
    "sigma_min": (None,),
    "thresholding": (None, False),
    "timestep_type": (None, "discrete"),
    "use_beta_sigmas": (None, False),
    "use_dynamic_shifting": (None, False),
    "use_exponential_sigmas": (None, False),
    "use_flow_sigmas": (None, False),
    "use_karras_sigmas": (None, False),
    "use_lu_lambdas": (None, False),
}


def check_class(preset: GeneratorPreset, scheduler: Any, known: Collection[str]) -> None:
    """Raises ``PresetError`` for a sampler of other noise levels than the family's."""
    name = type(scheduler).__name__
    if name not in known:
        raise PresetError(
            f"preset {preset.name}: the sampler of {preset.model} is {name}, which is not "
            f"supported here: name one of {', '.join(known)} in its {_FILE} and model_index.json, "
            "if the model was made for it, or choose another model"
        )


def check_unknown(
    preset: GeneratorPreset,
    config: Mapping[str, Any],
    sampler: type,
    *,
    known: Collection[str] = (),
) -> None:
    """Raises ``PresetError`` for a setting that is on and that ``sampler``, which replaces the
    model's own, has not, except for those that are ``known``."""
    has = {*inspect.signature(sampler).parameters, *known}
    for setting, off in _OFF.items():
        value = config.get(setting)
        if setting not in has and value not in off:
            why = f"which {sampler.__name__}, the sampler here, does not have"
            raise refusal(preset, setting, value, why)


def refusal(
    preset: GeneratorPreset, setting: str, value: object, why: str, remedy: str = ""
) -> PresetError:
    """The error for one setting. ``remedy`` replaces the usual one, which is to take the setting
    out."""
    remedy = remedy or "take it out, or choose another model"
    return PresetError(
        f"preset {preset.name}: {preset.model} has {setting} {value!r} in its {_FILE}, {why}: "
        f"{remedy}"
    )
