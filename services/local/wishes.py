"""Reads lists of presets and of GPUs, like `flux-schnell:6,sd-1.4`, `pixtral:1x2` and
`0-3,6`."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A higher number of processes must be a typing mistake.
MOST = 64
_RANGE = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")
#: A number, or the driver's name of a GPU or of a part of one.
_CARD = re.compile(r"[0-9]{1,4}|(GPU|MIG)-[0-9A-Za-z/-]{4,80}")


class WishError(ValueError):
    """The list makes no plan. The message names the flag and the remedy."""


@dataclass(frozen=True)
class Wish:
    """``count`` processes that serve ``preset``, each on ``cards`` GPUs."""

    preset: str
    count: int
    cards: int


def counted(flag: str, text: str) -> list[Wish]:
    """Presets in order: `a:2,b,c:1x4` are two processes of a, one of b, and one of c on four GPUs.

    The numbers of a preset that is named twice are added. Raises ``WishError``.
    """
    found: dict[tuple[str, int], int] = {}
    for part in text.split(","):
        name, colon, numbers = (piece.strip() for piece in part.partition(":"))
        if not name:
            raise WishError(
                f"{flag}: a preset is missing next to a comma; write a list like "
                "flux-schnell:2,sd-1.4"
            )
        count, _, cards = numbers.partition("x") if "x" in numbers else (numbers, "", "1")
        if colon and not (_is_count(count) and _is_count(cards)):
            raise WishError(
                f"{flag}: {part.strip()!r}: after the colon must be the number of processes for "
                f"{name}, 1 to {MOST}, like {name}:2; for a VLM on several GPUs also how many "
                "each has, like pixtral:1x2"
            )
        key = name, int(cards)
        found[key] = found.get(key, 0) + (int(count) if colon else 1)
    return [Wish(name, count, cards) for (name, cards), count in found.items()]


def _is_count(number: str) -> bool:
    return number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= MOST


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
