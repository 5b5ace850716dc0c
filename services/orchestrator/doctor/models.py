"""Presets, where their weights are, and whether they fit on a GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services.common.footprint.card import GIB, needed, usable
from services.common.footprint.choice import fastest
from services.common.footprint.usual import allowed, usual
from services.common.gpus import Gpus, look
from services.common.presets import EXTERNAL, AnyPreset, PresetError, Presets, load_presets
from services.orchestrator.doctor.finding import Finding, fine, problem, warning
from services.orchestrator.doctor.stores import of_disk

_COMMIT = re.compile(r"[0-9a-f]{40}")
#: Besides the weights, where nobody has counted: images, gradients, LoRAs, CUDA itself.
_WORK_GIB = 4.0
#: The oldest driver for each CUDA, from NVIDIA's notes on minor version compatibility.
DRIVERS = {"12": (525, 60), "13": (580, 0)}


def of_presets(directory: Path, names: Sequence[str]) -> tuple[list[AnyPreset], list[Finding]]:
    """The presets of these names, or all, that have weights; and the findings."""
    try:
        presets = load_presets(directory)
        chosen = [_named(presets, name) for name in names] or _all(presets)
    except PresetError as error:
        return [], [problem("presets", str(error), "correct it, or give another --preset")]
    found = [fine("presets", f"{', '.join(preset.name for preset in chosen)}, in {directory}")]
    loaded = [preset for preset in chosen if preset.family != EXTERNAL]
    for preset in loaded:
        found += _of_preset(preset, directory)
    return loaded, found


def _named(presets: Presets, name: str) -> AnyPreset:
    known: dict[str, AnyPreset] = {**presets.generators, **presets.vlms}
    if name not in known:
        raise PresetError(f"--preset: {name!r} is unknown: choose from {', '.join(known)}")
    return known[name]


def _all(presets: Presets) -> list[AnyPreset]:
    return [*presets.generators.values(), *presets.vlms.values()]


def _of_preset(preset: AnyPreset, directory: Path) -> Iterator[Finding]:
    if not preset.is_on_hub:
        if not Path(preset.model).is_dir():
            yield problem(
                "presets",
                f"{preset.name}: the folder {preset.model} is not there",
                "put the model there, or correct `model:`",
            )
    elif preset.revision is None or not _COMMIT.fullmatch(preset.revision):
        what = "no revision" if preset.revision is None else f"the revision {preset.revision}"
        yield warning(
            "presets",
            f"{preset.name} has {what}, so its weights may change from one day to the next",
            f"write the commit of {preset.model} as `revision:` into its file in {directory}",
        )


def of_cache(presets: Sequence[AnyPreset]) -> Finding:
    """Space for the weights that are still to be downloaded."""
    cache = _cache()
    missing = [
        preset
        for preset in presets
        if preset.is_on_hub and not (cache / f"models--{preset.model.replace('/', '--')}").is_dir()
    ]
    needed = sum(preset.weights_gib for preset in missing) * 2**30
    return of_disk(cache, "for weights", int(needed))


def _cache() -> Path:
    """Where the hub's library keeps weights."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def of_gpus(presets: Sequence[AnyPreset], *, named: bool) -> list[Finding]:
    """If presets are ``named``, each must fit on a GPU here; else this is only a warning."""
    gpus = look()
    needy = [preset for preset in presets if preset.is_on_hub]
    if not gpus.found:
        if not (named and needy):
            return [fine("gpu", f"none ({gpus.fault}); the tiny pair needs none")]
        names = ", ".join(preset.name for preset in needy)
        return [
            problem(
                "gpu",
                f"none is found, and {names} can't run without one: {gpus.fault}",
                "install NVIDIA's driver; in containers, start them with a GPU",
            )
        ]
    return [*_of_cards(gpus), *_of_torch(gpus), *(_fits(preset, gpus, named) for preset in needy)]


def _of_cards(gpus: Gpus) -> Iterator[Finding]:
    for gpu in gpus.found:
        free, total = gpu.free_mib / 1024, gpu.total_mib / 1024
        said = f"{gpu.index}: {gpu.name}, {free:.0f} of {total:.0f} GiB free"
        yield fine("gpu", f"{said}, driver {gpu.driver}")


def _fits(preset: AnyPreset, gpus: Gpus, named: bool) -> Finding:
    need = _need(preset)
    said = f"{preset.name} needs about {need:.0f} GiB ({preset.weights_gib:.0f} of weights)"
    large = [gpu for gpu in gpus.found if _gib(gpu.total_mib) >= need or not gpu.total_mib]
    if not large:
        largest = max(_gib(gpu.total_mib) for gpu in gpus.found)
        said = f"{said}; the largest GPU here has {largest:.0f} GiB"
        remedy = _smaller(preset, largest)
        return problem("memory", said, remedy) if named else warning("memory", said, remedy)
    free = [gpu for gpu in large if _gib(gpu.free_mib) >= need or not gpu.total_mib]
    if not free:
        where = ", ".join(gpu.index for gpu in large)
        return warning(
            "memory",
            f"{said}; GPU {where} has that much, but it is in use",
            "`nvidia-smi` shows by what; if it is this model, all is well",
        )
    return fine("memory", f"{said}; GPU {', '.join(gpu.index for gpu in free)} has that much free")


def _need(preset: AnyPreset) -> float:
    """GiB of a card, at the smallest level of memory that the preset allows."""
    peaks = [one.peak for one in allowed(preset)]
    return needed(min(peaks)) / GIB if peaks else preset.weights_gib + _WORK_GIB


def _smaller(preset: AnyPreset, gib: float) -> str:
    found = fastest(usual(preset), usable(gib))
    if found is None:
        return "use a larger GPU, or a smaller model"
    work = found.work
    quantized = f", quantize {work.quantize}" if work.quantize else ""
    return f"write memory {work.level}{quantized}, or use a larger GPU"


def _of_torch(gpus: Gpus) -> Iterator[Finding]:
    """Whether the torch of this environment is built for a CUDA that the driver supports."""
    try:
        build = version("torch")
    except PackageNotFoundError:
        return
    if build.endswith("+cpu"):
        yield problem(
            "cuda",
            f"torch {build} has no CUDA, but there are GPUs",
            "pip install torch from https://download.pytorch.org/whl, without +cpu",
        )
        return
    cuda = _cuda(build)
    if cuda is None or cuda not in DRIVERS:
        return
    oldest = DRIVERS[cuda]
    said = f"torch {build} is built for CUDA {cuda}, the driver is {gpus.driver}"
    if _numbers(gpus.driver) < oldest:
        remedy = f"install driver {oldest[0]}.{oldest[1]:02} or newer, or a torch for an older CUDA"
        yield problem("cuda", said, remedy)
    else:
        yield fine("cuda", said)


def _cuda(build: str) -> str | None:
    """The major version, from the build's name, else from the runtime that is installed with it."""
    if match := re.search(r"\+cu(\d{2})", build):
        return match[1]
    for package in ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"):
        try:
            return version(package).partition(".")[0]
        except PackageNotFoundError:
            continue
    return None


def _numbers(driver: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", driver)[:2])


def _gib(mib: int) -> float:
    return mib / 1024
