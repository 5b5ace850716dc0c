"""The command lines of ``python -m services.generator.footprint`` and of the VLM's: footprints of
presets as JSON, one object a line."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from dualprocess import printable
from services.common.footprint.footprint import Footprint
from services.common.presets import DEFAULT_DIRECTORY, PresetError, Presets, load_presets

Counted = Callable[[Presets, str, int, int, int], Iterator[Footprint]]


def main(program: str, counted: Counted, arguments: Sequence[str] | None = None) -> None:
    """Prints what ``counted(presets, preset, size, batch, questions)`` gives for each preset and
    size, as soon as it is there."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=__doc__)
    parser.add_argument("presets", nargs="+", metavar="PRESET")
    parser.add_argument("--size", type=int, action="append", required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--questions", type=int, action="append")
    parser.add_argument("--folder", type=Path, default=DEFAULT_DIRECTORY, help="of presets")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    try:
        presets = load_presets(options.folder)
        for name in options.presets:
            for size in options.size:
                for questions in options.questions or [0]:
                    for found in counted(presets, name, size, options.batch, questions):
                        print(json.dumps(found.as_json()), flush=True)
    except PresetError as error:
        sys.exit(printable.lines(str(error)))
