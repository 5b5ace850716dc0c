"""``python -m services.local.fit``, which ``dualprocess fit`` runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from dualprocess import printable
from services.common.footprint.card import CARDS
from services.common.presets import DEFAULT_DIRECTORY, PresetError, load_presets
from services.local.fit import record
from services.local.fit.cards import as_json, held
from services.local.fit.count import settings
from services.local.fit.tables import conclusion, needs, places

_BAD_INPUT = 2
_MOST_QUESTIONS = 32


def main(arguments: Sequence[str] | None = None) -> None:
    printable.replace_what_cannot_be_encoded()
    options = _options(arguments)
    try:
        presets = load_presets(options.presets)
        if options.write:
            record.write(presets, options.presets)
            return
        generator, vlm = presets.generator(options.generator), presets.vlm(options.vlm)
        size = options.size or max(generator.image.width, generator.image.height)
        batch = options.batch or generator.optimizer.batch
        generators = settings(generator, size, batch, 0, options.presets)
        vlms = settings(vlm, size, batch, options.questions, options.presets)
    except PresetError as error:
        _refuse(str(error))
    found = held(generators, vlms, options.cards)
    if options.json:
        told = {
            "generator": [one.as_json() for one in generators],
            "vlm": [one.as_json() for one in vlms],
            "cards": [as_json(one) for one in found],
        }
        print(json.dumps(told, indent=2))
        return
    console = Console()
    console.print(needs(generators, vlms))
    console.print(places(found))
    console.print(conclusion(generators, vlms, found), highlight=False, soft_wrap=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="dualprocess fit",
        description="Computes from the architectures, without weights and without a GPU, which "
        "cards hold a generator and a VLM, and with which settings.",
    )
    parser.add_argument("generator", nargs="?", metavar="GENERATOR", help="preset")
    parser.add_argument("vlm", nargs="?", metavar="VLM", help="preset")
    parser.add_argument("--questions", type=_questions, default=5, help="about each image: 5")
    parser.add_argument("--size", type=_positive, help="side of the images: the preset's")
    parser.add_argument("--batch", type=_positive, help="images of a step: the preset's")
    parser.add_argument(
        "--cards", type=_cards, default=CARDS, help="sizes in GiB: 16,24,48,80", metavar="GIB,…"
    )
    parser.add_argument("--json", action="store_true", help="bytes, for programs")
    parser.add_argument("--presets", type=Path, default=DEFAULT_DIRECTORY, help="folder of presets")
    parser.add_argument(
        "--write", action="store_true", help="count all presets anew, and record them; takes long"
    )
    options = parser.parse_args(arguments)
    if not options.write and options.vlm is None:
        parser.error("name a generator and a VLM: dualprocess fit flux-schnell idefics2")
    return options


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:6]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def _questions(text: str) -> int:
    number = _positive(text)
    if number > _MOST_QUESTIONS:
        raise argparse.ArgumentTypeError(f"{number} is more than a job may ask: {_MOST_QUESTIONS}")
    return number


def _cards(text: str) -> list[int]:
    return [_positive(part.strip()) for part in text.split(",")]


def _refuse(fault: str) -> NoReturn:
    print(printable.lines(f"dualprocess: {fault}"), file=sys.stderr)
    sys.exit(_BAD_INPUT)


if __name__ == "__main__":
    main()
