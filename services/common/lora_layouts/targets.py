"""``lora.target_modules``: suffixes of names of modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache


def unnamed(modules: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The modules that no target is a suffix of, compared as peft does it."""
    endings = tuple(f".{target}" for target in targets)
    return [module for module in modules if not f".{module}".endswith(endings)]


def more_targets(missing: Sequence[str], targets: Sequence[str], modules: Iterable[str]) -> str:
    """``lora.target_modules`` with the missing modules added, as a text to paste. ``modules`` are
    all that can be adapted; each suffix must fit only them."""
    paths = [f".{module}" for module in modules]

    @cache
    def is_container(suffix: str) -> bool:
        return any(f".{suffix}." in path for path in paths)

    def shortest(module: str) -> str:
        suffix = re.sub(r"^(\w+\.\d+\.)+", "", module)
        return module if is_container(suffix) else suffix

    return f"[{', '.join(dict.fromkeys([*targets, *map(shortest, missing)]))}]"
