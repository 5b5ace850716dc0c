"""What people write of several models and cards: `flux-schnell:6,sd-1.4`, `0-3,6`."""

from __future__ import annotations

import re

#: More processes than a machine has any use for: a number that was mistyped.
MOST = 64
_RANGE = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")
#: A number, or as the driver calls cards and their parts.
_CARD = re.compile(r"[0-9]{1,4}|(GPU|MIG)-[0-9A-Za-z/-]{4,80}")


class WishError(ValueError):
    """What was written makes no plan. The message names the flag, and the remedy."""


def counted(flag: str, text: str) -> list[tuple[str, int]]:
    """Presets in their order, each with how many of it: `a:2,b` is ``[("a", 2), ("b", 1)]``.

    A preset that is named twice is meant as often. Raises ``WishError``.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if not name:
            raise WishError(f"{flag}: has a comma without a preset; write it like flux-schnell:2")
        is_count = number.isascii() and number.isdecimal() and 1 <= int(number[:9]) <= MOST
        if colon and not is_count:
            raise WishError(
                f"{flag}: {part.strip()!r}: behind the colon stands how many of {name} are to run, "
                f"1 to {MOST}, like {name}:2"
            )
        found[name] = found.get(name, 0) + (int(number) if colon else 1)
    return list(found.items())


def cards(flag: str, text: str) -> list[str]:
    """Cards in the order of their use: `0-2,5` is ``["0", "1", "2", "5"]``. Raises ``WishError``
    for what is no list of cards, and for one that is named twice."""
    found: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        if match := _RANGE.fullmatch(part):
            first, last = int(match[1]), int(match[2])
            if last < first:
                raise WishError(f"{flag}: {part} runs backwards; write {last}-{first}")
            found += map(str, range(first, last + 1))
        elif _CARD.fullmatch(part):
            found.append(str(int(part)) if part.isdecimal() else part)
        else:
            raise WishError(
                f"{flag}: {part!r} is no GPU; write numbers and ranges as nvidia-smi counts them, "
                "like 0-3,6, or its UUIDs"
            )
    twice = next((card for card in found if found.count(card) > 1), None)
    if twice is not None:
        raise WishError(
            f"{flag}: names GPU {twice} twice; each process has a GPU of its own, so name each once"
        )
    return found
