"""How a process imports its libraries before it is ready: without what it doesn't use yet."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from services.common.packages import lighter

#: Libraries import names from these where they are installed. No service uses what they are for.
UNUSED = (
    "httpx._main",  # by httpx, for its own command line
    "opentelemetry.sdk.metrics",  # by redis, for its own metrics
    "peft",  # by diffusers, to load LoRAs
)
#: Libraries import these as a whole where they are installed, and use them late, or never.
LATE = (
    "bitsandbytes",  # by diffusers, for models that it has quantised
    "boto3",  # by accelerate, for SageMaker
    "scipy.integrate",  # by diffusers, for its LMS sampler
    "scipy.stats",  # by diffusers, for samplers with beta sigmas
)


@contextmanager
def import_first(*unused: str) -> Iterator[None]:
    """For the imports of a process's start. ``UNUSED`` and ``unused`` look as if they were not
    installed, until the end. ``LATE`` are imported when something in them is first used.

    No garbage is collected meanwhile: imports make millions of objects that stay, and each
    collection would look through all of them. Later collections leave them out, too. What libraries
    do besides, and nobody needs, is left out: ``packages.lighter``.
    """
    # For an import, and for ``find_spec``, None says that there is no such module.
    instead: dict[str, Any] = {name: None for name in (*UNUSED, *unused) if name not in sys.modules}
    sys.modules.update(instead)
    late = {name: _spec(name) for name in LATE if name not in sys.modules}
    instead |= {name: _Late(spec) for name, spec in late.items() if spec}
    sys.modules.update(instead)
    collects = gc.isenabled()
    gc.disable()
    try:
        with lighter():
            yield
    finally:
        for name, module in instead.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        gc.freeze()
        if collects:
            gc.enable()


def _spec(name: str) -> ModuleSpec | None:
    """Like ``find_spec``, but imports no package above it: scipy's brings numpy."""
    above = name.rpartition(".")[0]
    if not above:
        return PathFinder.find_spec(name)
    if above in sys.modules:
        path = getattr(sys.modules[above], "__path__", None)
    else:
        path = getattr(_spec(above), "submodule_search_locations", None)
    return PathFinder.find_spec(name, path) if path else None


class _Late(ModuleType):
    """Stands for a module that is imported at the first use of anything in it."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec

    def __getattr__(self, name: str) -> Any:
        # ``inspect`` looks for these in all modules.
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)
