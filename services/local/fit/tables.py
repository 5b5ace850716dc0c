"""What people read: what each setting needs, what each card holds."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from services.common.footprint.card import GIB, needed
from services.common.footprint.footprint import Footprint
from services.local.fit.cards import Held, Pair


def needs(generators: Sequence[Footprint], vlms: Sequence[Footprint]) -> Table:
    """GiB of a card for each process, at every setting."""
    work = generators[0].work
    asked = vlms[0].work.questions
    title = (
        f"GiB of a card, computed: {work.size} × {work.size}, batch {work.batch}, {_number(asked)}"
    )
    table = Table(title=title)
    for header in ("process", "memory", "exact", "int8", "nf4", "TFLOP a step"):
        table.add_column(header, justify="left" if header in ("process", "memory") else "right")
    for settings in (generators, vlms):
        for level in dict.fromkeys(one.work.level for one in settings):
            row = {one.work.quantize: one for one in settings if one.work.level == level}
            cells = [_gib(needed(one.peak)) for one in row.values()]
            flops = f"{row[None].total_flops / 1e12:.1f}"
            table.add_row(settings[0].work.preset, level, *cells, flops)
    return table


def places(held: Sequence[Held]) -> Table:
    table = Table()
    for header in ("card", "both on one", "each on its own", "VLM over two, at most"):
        table.add_column(header, justify="right" if header == "card" else "left")
    for card in held:
        spread = said(card.three) if card.three is None else f"{said(card.three)} each"
        table.add_row(f"{card.gib} GiB", said(card.one, together=True), said(card.two), spread)
    return table


def said(pair: Pair | None, *, together: bool = False) -> str:
    """The settings of a pair, and what it takes."""
    if pair is None:
        return "–"
    told = ", ".join(f"{one.work.preset} {setting(one)}" for one in pair)
    sizes = [needed(one.peak) for one in pair]
    taken = _gib(sum(sizes)) if together else " + ".join(map(_gib, sizes))
    return f"{told}: {taken}"


def setting(footprint: Footprint) -> str:
    work = footprint.work
    return f"{work.level} {work.quantize}" if work.quantize else work.level


def conclusion(
    generators: Sequence[Footprint], vlms: Sequence[Footprint], held: Sequence[Held]
) -> str:
    another = min(generators, key=lambda one: one.held)
    said = (
        "A job more at the same time adds "
        f"{_gib(generators[0].held)} GiB to the generator at memory level fast, "
        f"{_gib(another.held)} at {another.work.level}."
    )
    if not any(card.one or card.two or card.three for card in held):
        least = min(needed(one.peak) for one in generators), min(needed(one.peak) for one in vlms)
        said += (
            f" None of these cards holds the pair: the smallest settings need {_gib(least[0])} and "
            f"{_gib(least[1])} GiB. Name larger ones with --cards, or choose a smaller --size or "
            "model."
        )
    return said


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"


def _number(questions: int) -> str:
    return f"{questions} question{'' if questions == 1 else 's'}"
