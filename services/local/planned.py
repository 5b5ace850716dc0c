"""A plan in words, before anything starts."""

from __future__ import annotations

from services.common.gpus import Gpu, Gpus
from services.local.plan import VISIBLE, Placed, Plan
from services.local.settings import LocalSettings


def told(plan: Plan, settings: LocalSettings, gpus: Gpus) -> str:
    """A line for each process, in the order of their start, and one for each warning."""
    redis = "its own" if settings.redis_url is None else "the one named in the environment"
    others = (f"{name} at {target}" for name, target in plan.teachers.items())
    asked = ", ".join([*(vlm.name for vlm in plan.vlms), *others])
    rows = [
        ("redis", redis),
        *((place.name, _place(place, gpus)) for place in (*plan.vlms, *plan.generators)),
        ("api", settings.url),
        *(
            (worker_of(place), f"drives {place.name}, asks {asked}, {_slots(settings)}")
            for place in plan.generators
        ),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {what}" for name, what in rows]
    return "\n".join(["The plan:", *lines, *(f"WARNING: {said}" for said in plan.warnings)])


def worker_of(generator: Placed) -> str:
    """The name of the worker that drives it."""
    return "worker" + generator.name.removeprefix("generator")


def flags(place: Placed) -> list[str]:
    """What the plan chooses instead of the preset."""
    chosen = {"--memory": place.memory, "--quantize": place.quantize}
    return [f"{flag}={value}" for flag, value in chosen.items() if value is not None]


def _slots(settings: LocalSettings) -> str:
    return f"{settings.slots} job{'' if settings.slots == 1 else 's'} at once"


def _place(place: Placed, gpus: Gpus) -> str:
    if not place.cards:
        return f"{place.preset}, --device {place.device}"
    told = ", ".join([place.preset, f"{VISIBLE}={','.join(place.cards)}", *flags(place)])
    known = [_told(gpu) for card in place.cards if (gpu := gpus.called(card)) is not None]
    return f"{told} ({'; '.join(known)})" if known else told


def _told(gpu: Gpu) -> str:
    free, total = gpu.free_mib / 1024, gpu.total_mib / 1024
    return f"{gpu.name}, {free:.0f} of {total:.0f} GiB free"
