"""Reads lists of presets and of GPUs, like `flux-schnell:6,sd-1.4` and `0-3,6`."""

from __future__ import annotations

import re

#: A higher number of processes must be a typing mistake.
MOST = 64
_RANGE = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")
#: A number, or the driver's name of a GPU or of a part of one.
_CARD = re.compile(r"[0-9]{1,4}|(GPU|MIG)-[0-9A-Za-z/-]{4,80}")


class WishError(ValueError):
    """The list makes no plan. The message names the flag and the remedy."""


def counted(flag: str, text: str) -> list[tuple[str, int]]:
    """Presets in order, each with its number of processes: `a:2,b` is ``[("a", 2), ("b", 1)]``.

    The numbers of a preset that is named twice are added. Raises ``WishError``.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if not name:
            raise WishError(
                f"{flag}: a preset is missing next to a comma; write a list like "
                "flux-schnell:2,sd-1.4"
            )
        is_count = number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= MOST
        if colon and not is_count:
            raise WishError(
                f"{flag}: {part.strip()!r}: after the colon must be the number of processes for "
                f"{name}, 1 to {MOST}, like {name}:2"
            )
        found[name] = found.get(name, 0) + (int(number) if colon else 1)
    return list(found.items())


def cards(flag: str, text: str) -> list[str]:
    """GPUs in the order of their use: `0-2,5` is ``["0", "1", "2", "5"]``. Raises ``WishError`` if
    the text is not a list of GPUs, or names one twice."""
    found: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        if match := _RANGE.fullmatch(part):
            first, last = int(match[1]), int(match[2])
            if last < first:
                raise WishError(f"{flag}: {part} goes backwards; write {last}-{first}")
            found += map(str, range(first, last + 1))
        elif _CARD.fullmatch(part):
            found.append(str(int(part)) if part.isdecimal() else part)
        else:
            raise WishError(
                f"{flag}: {part!r} can't be a GPU; write numbers and ranges as nvidia-smi counts "
                "them, like 0-3,6, or UUIDs"
            )
    twice = next((card for card in found if found.count(card) > 1), None)
    if twice is not None:
        raise WishError(
            f"{flag}: names GPU {twice} twice; each process needs its own GPU, so name each once"
        )
    return found
