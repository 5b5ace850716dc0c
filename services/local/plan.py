"""The plan of a stack: which models it serves, in how many processes, and on which GPUs. It is made
before any process starts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Literal

from services.common.footprint.usual import too_small
from services.common.gpus import Gpu, Gpus
from services.common.memory import MemoryLevel, Quantization
from services.common.presets import AnyPreset, PresetError, Presets
from services.local.others import addressed, refuse_to_load
from services.local.settings import LocalSettings
from services.local.sharing import shared
from services.local.wishes import Wish, WishError, cards, counted

Service = Literal["generator", "vlm"]

#: The GPUs that a process sees, and the order in which GPUs are numbered.
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
#: Devices that mean GPUs of its own for each process, if there are any.
_ANY_CARD = ("auto", "cuda")


@dataclass(frozen=True)
class Placed:
    """One GPU service. ``cards`` are the only GPUs that it sees; none: it sees all. ``memory`` and
    ``quantize`` are chosen where processes share a card; ``None``: as the preset says."""

    name: str
    service: Service
    preset: str
    device: str
    cards: Sequence[str] = ()
    memory: MemoryLevel | None = None
    quantize: Quantization | None = None

    def is_on(self, gpu: Gpu) -> bool:
        """Whether this GPU is all that it has."""
        return len(self.cards) == 1 and gpu.is_called(self.cards[0])


@dataclass(frozen=True)
class Plan:
    """At least one of each; several may serve one preset. ``warnings`` are for the user.
    ``teachers`` are the addresses of presets that others serve."""

    generators: Sequence[Placed]
    vlms: Sequence[Placed]
    warnings: Sequence[str] = field(default=())
    teachers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        *others, last = [*_counted(self.generators), *_counted(self.vlms)]
        return f"{', '.join(others)} and {last}"


def made(
    settings: LocalSettings, presets: Presets, gpus: Gpus, environment: Mapping[str, str]
) -> Plan:
    """Raises ``PresetError`` if a name is not a preset or a kind is missing, and ``WishError`` for
    GPUs that are not there or can't be used."""
    wanted = _chosen(settings, presets)
    generators, vlms = (_repeated(wishes) for wishes in wanted)
    refuse_to_load(vlms, presets)
    models: list[AnyPreset] = [
        *(presets.generator(name) for name in generators),
        *(presets.vlm(name) for name in vlms),
    ]
    each = [wish.cards for wishes in wanted for wish in wishes for _ in range(wish.count)]
    dealt, warnings = _dealt(settings, models, each, gpus, environment)
    names = [*_named("generator", generators), *_named("vlm", vlms)]
    placed = [
        Placed(name, "generator" if number < len(generators) else "vlm", model.name, *place)
        for number, (name, model, place) in enumerate(zip(names, models, dealt, strict=True))
    ]
    placed, full = _together(settings, placed, models, gpus, environment)
    return Plan(
        placed[: len(generators)],
        placed[len(generators) :],
        [*warnings, *full.values(), *_too_small(placed, models, gpus, told=full)],
        addressed(settings.teachers, presets),
    )


def _chosen(settings: LocalSettings, presets: Presets) -> tuple[list[Wish], list[Wish]]:
    """Generators, VLMs."""
    if not settings.models:
        generators = counted("--generator", settings.generator)
        vlms = counted("--vlm", settings.vlm)
        for wish in generators:
            presets.generator(wish.preset)
        for wish in vlms:
            presets.vlm(wish.preset)
        _refuse_to_spread("--generator", generators)
        return generators, vlms
    if other := settings.model_fields_set & {"generator", "vlm"}:
        flags = " and ".join(f"--{name}" for name in sorted(other))
        raise WishError(f"--models: can't be used together with {flags}; leave out one of them")
    wishes = counted("--models", settings.models)
    known: dict[str, Mapping[str, AnyPreset]] = {
        "generator": presets.generators,
        "VLM": presets.vlms,
    }
    for wish in wishes:
        if not any(wish.preset in kind for kind in known.values()):
            listed = ", ".join(preset for kind in known.values() for preset in kind)
            raise PresetError(f"--models: {wish.preset!r} is unknown: choose from {listed}")
    for what, kind in known.items():
        if not any(wish.preset in kind for wish in wishes):
            raise PresetError(f"--models: names no {what}: add one of {', '.join(kind)}")
    generators, vlms = ([wish for wish in wishes if wish.preset in kind] for kind in known.values())
    _refuse_to_spread("--models", generators)
    return generators, vlms


def _refuse_to_spread(flag: str, generators: Sequence[Wish]) -> None:
    for wish in generators:
        if wish.cards > 1:
            raise WishError(
                f"{flag}: {wish.preset}:{wish.count}x{wish.cards}: a generator runs on one GPU, "
                f"only a VLM on several; write {wish.preset}:{wish.count * wish.cards} for a "
                "process on each"
            )


def _repeated(wishes: Sequence[Wish]) -> list[str]:
    return [wish.preset for wish in wishes for _ in range(wish.count)]


def _dealt(
    settings: LocalSettings,
    models: Sequence[AnyPreset],
    each: Sequence[int],
    gpus: Gpus,
    environment: Mapping[str, str],
) -> tuple[list[tuple[str, Sequence[str]]], list[str]]:
    """For every model in turn its device and its GPUs, as many as ``each`` says, and warnings."""
    device = settings.device
    visible = _visible(gpus, environment)
    if "," in device:
        raise WishError(
            f"--device {device}: is for all processes, and a generator runs on one; to spread a "
            "VLM over GPUs write --vlm NAME:1x2, and leave out --device"
        )
    if settings.gpus:
        named = cards("--gpus", settings.gpus)
        _check(named, settings, gpus, visible)
        device = "cuda" if gpus.found else device
        warnings = [] if gpus.found else [_no_gpu(gpus, f"--gpus {settings.gpus}")]
        if spare := named[sum(each) :]:
            warnings.append(f"nothing runs on GPU {', '.join(spare)}; ask for more processes")
        return _in_turn(named, device, models, each), [*warnings, *_shared_cards(each, len(named))]
    alone: list[tuple[str, Sequence[str]]] = [(device, ())] * len(models)
    if device not in _ANY_CARD:
        if max(each) > 1:
            raise WishError(
                f"--device {device}: puts all processes in one place, and --vlm spreads one over "
                f"{max(each)} GPUs; leave out --device, or the number behind the x"
            )
        return alone, []
    if gpus.found and visible:
        device = "cuda" if max(each) > 1 else device
        return _in_turn(visible, device, models, each), _shared_cards(each, len(visible))
    from_hub = dict.fromkeys(model.name for model in models if model.is_on_hub)
    warnings = [_no_gpu(gpus, f"--device {device}, for {', '.join(from_hub)}")] if from_hub else []
    return alone, warnings


def _in_turn(
    named: Sequence[str], device: str, models: Sequence[AnyPreset], each: Sequence[int]
) -> list[tuple[str, Sequence[str]]]:
    """A process on several GPUs names them as it sees them."""
    dealt: list[tuple[str, Sequence[str]]] = []
    turn = cycle(named)
    for model, count in zip(models, each, strict=True):
        if count > len(named):
            raise WishError(
                f"--vlm: {model.name} on {count} GPUs: there are {len(named)}, "
                f"{', '.join(named)}; write a smaller number behind the x"
            )
        mine = tuple(next(turn) for _ in range(count))
        if count > 1 and any(one.startswith("MIG-") for one in mine):
            raise WishError(
                f"--vlm: {model.name} on {count} GPUs: CUDA shows a process only one part of a "
                "GPU; name whole GPUs"
            )
        is_spread = count > 1 and device == "cuda"
        seen = ",".join(f"cuda:{number}" for number in range(count))
        dealt.append((seen if is_spread else device, mine))
    return dealt


def _shared_cards(each: Sequence[int], cards: int) -> list[str]:
    if cards >= sum(each) or cards == 1:
        return []
    if max(each) > 1:
        return [
            f"{len(each)} processes ask for {sum(each)} GPUs and share {cards}; GPUs of their own "
            "are faster"
        ]
    return [f"{len(each)} processes share {cards} GPUs; one GPU for each is faster"]


def _visible(gpus: Gpus, environment: Mapping[str, str]) -> list[str] | None:
    """The GPUs that this process may hand out; ``None`` if nothing is known about them."""
    told = environment.get(VISIBLE)
    if told is None:
        return [gpu.index for gpu in gpus.found] or None
    names = (name.strip() for name in told.split(","))
    return [name for name in names if name and name != "-1"]


def _check(
    named: Sequence[str],
    settings: LocalSettings,
    gpus: Gpus,
    visible: Sequence[str] | None,
) -> None:
    device = settings.device
    if device not in _ANY_CARD:
        raise WishError(
            f"--gpus: gives each process its own GPU, but --device {device} puts all of them in "
            "one place; leave out one of the two"
        )
    if device == "cuda" and not gpus.found and not settings.dry_run:
        raise WishError(f"--gpus: no NVIDIA GPU is found here: {gpus.fault}")
    # A part of a GPU is not in the driver's list.
    whole = [name for name in named if not name.startswith("MIG-")]
    if gpus.found and (unknown := [name for name in whole if gpus.called(name) is None]):
        here = ", ".join(gpu.index for gpu in gpus.found)
        raise WishError(f"--gpus: GPU {', '.join(unknown)} is not here; there are {here}")
    same = [gpu.index for name in whole if (gpu := gpus.called(name))]
    if twice := next((index for index in same if same.count(index) > 1), None):
        raise WishError(f"--gpus: names GPU {twice} twice, by its number and by its UUID")
    if visible is None:
        return
    allowed = {gpu.index for name in visible if (gpu := gpus.called(name))} | set(visible)
    for name in named:
        gpu = gpus.called(name)
        if name not in allowed and (gpu is None or gpu.index not in allowed):
            raise WishError(
                f"--gpus: GPU {name} is not in {VISIBLE}={','.join(visible)} of this environment; "
                "choose from those, or unset the variable"
            )


def _no_gpu(gpus: Gpus, asked: str) -> str:
    found = gpus.fault or f"{VISIBLE} hides all of them"
    return (
        f"NO GPU IS FOUND, and {asked} needs one: {found}. Everything runs on the CPU, which needs "
        "hours where a GPU needs minutes"
    )


def _together(
    settings: LocalSettings,
    placed: Sequence[Placed],
    models: Sequence[AnyPreset],
    gpus: Gpus,
    environment: Mapping[str, str],
) -> tuple[list[Placed], dict[str, str]]:
    """Chooses the settings of processes that share a card; a warning for each card whose processes
    don't fit, by its index."""
    chosen, warnings = list(placed), {}
    for gpu in gpus.found:
        here = [number for number, place in enumerate(placed) if place.is_on(gpu)]
        if len({placed[number].service for number in here}) < 2:
            continue
        found = shared(gpu, [models[number] for number in here], settings.slots, environment)
        for number, one in zip(here, found.chosen or (), strict=False):
            work = one.work
            chosen[number] = replace(chosen[number], memory=work.level, quantize=work.quantize)
        if found.warning:
            warnings[gpu.index] = found.warning
    return chosen, warnings


def _too_small(
    placed: Sequence[Placed],
    models: Sequence[AnyPreset],
    gpus: Gpus,
    told: Collection[str],
) -> list[str]:
    """Warns of GPUs that have too little memory for the models on them, or for their part of one.
    Where settings were chosen, there is enough; ``told`` are those that are warned of already."""
    said = []
    for gpu in gpus.found:
        if gpu.index in told:
            continue
        here = [
            model
            for place, model in zip(placed, models, strict=True)
            if place.memory is None and place.is_on(gpu)
        ]
        if here and gpu.total_mib and (fault := too_small(here, gpu.total_mib / 1024)):
            said.append(f"GPU {gpu.index} has {gpu.total_mib / 1024:.0f} GiB, and {fault}")
    for place, model in zip(placed, models, strict=True):
        known = [one.total_mib for card in place.cards if (one := gpus.called(card))]
        gib = min(known, default=0) / 1024
        if len(place.cards) > 1 and gib and (fault := too_small([model], gib, len(place.cards))):
            said.append(f"one of GPU {', '.join(place.cards)} has {gib:.0f} GiB, and {fault}")
    return said


def _named(service: str, presets: Sequence[str]) -> list[str]:
    """The names of the processes: that of the service if there is only one, with the preset's name
    if all presets differ, else with a number."""
    if len(presets) == 1:
        return [service]
    if len(set(presets)) == len(presets):
        return [f"{service}-{preset}" for preset in presets]
    return [f"{service}-{number}" for number in range(1, len(presets) + 1)]


def _counted(placed: Sequence[Placed]) -> list[str]:
    names = [place.preset for place in placed]
    return [
        name if names.count(name) == 1 else f"{name} ({names.count(name)} processes)"
        for name in dict.fromkeys(names)
    ]
