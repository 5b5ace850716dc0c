"""Measures the exported pair, and writes the results into the model cards.

`python -m models.training.evaluate` prints the tables of everything that the pair must reach. With
`--quick` it takes fewer images, and one training seed for each task. With `--off` it works without
the guard. These two do not change the cards.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualprocess.schemas import GuardOptions
from models.training import questions as q
from models.training.captions import full_caption
from models.training.measure import Measured, measure
from models.training.one_process import Pair
from models.training.optimize import GENERATOR, OFF, VLM, optimize
from models.training.pair import Generator, Vlm, images_to_uint8, noise_of
from models.training.pools import pool_of
from models.training.tasks import TASKS
from models.training.unasked import MEASURES, Unasked, diversity, unasked
from models.training.variations import random_scenes
from models.training.vlm_examples import Example, line_examples, palette_examples
from models.training.world import ATTRIBUTES, NAMES, Ints, render, to_uint8
from services.common.presets import load_presets

MODELS = Path(__file__).parents[1]
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
Images = NDArray[np.uint8]

_LEARNED = (
    "task",
    "seed",
    "success before",
    "after",
    "probability before",
    "after",
    "one whole shape",
    "VAE error ×",
)
_CHANGED = ("task", "seed", "diversity", "color kept", *MEASURES)


@dataclass(frozen=True)
class Table:
    """A title, a header and rows, all text."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(r)} |" for r in lines), ""])


def described(generator: Generator, count: int) -> tuple[Images, Ints]:
    """Images of fully described scenes, and the described classes (N, 8)."""
    classes = random_scenes(np.random.default_rng(101), count).classes
    images = []
    for seed, row in enumerate(classes):
        encoded = generator.encode(full_caption(row))
        with torch.no_grad():
            images.append(images_to_uint8(generator.decode_step(encoded, noise_of([seed]))))
    return np.concatenate(images), classes


def vlm_table(generator: Generator, vlm: Vlm, count: int) -> Table:
    """Accuracy by kind of question, Yes and No balanced, on three sources of images."""
    scenes = random_scenes(np.random.default_rng(100), count)
    drawn = to_uint8(render(scenes))
    made, made_classes = described(generator, count)
    sources = [
        (drawn, scenes.classes),
        (generator.reconstruct(drawn), scenes.classes),
        (made, made_classes),
    ]
    rows = []
    for kind in q.WORDINGS:
        accuracies = [_accuracy(vlm, images, kind, classes) for images, classes in sources]
        rows.append((kind, *map(_percent, accuracies)))
    header = ("question", "held-out scenes", "VAE reconstructions", "generator's images")
    return Table("Yes/No questions", header, rows)


def visual_prompt_table(vlm: Vlm, count: int) -> Table:
    """Accuracy for overlaid lines and palettes, on drawn and on reconstructed scenes."""
    rows = []
    makers: dict[str, Callable[..., list[Example]]] = {
        "red line": line_examples,
        "palette strip": palette_examples,
    }
    for name, make in makers.items():
        rng = np.random.default_rng(102)
        scenes = random_scenes(rng, count)
        shown = make(rng, pool_of(to_uint8(render(scenes)), scenes))
        images = to_uint8(np.stack([example.image for example in shown]))
        asked = [example.special for example in shown if example.special]
        yes = [chance > 0.5 for _, chance in asked]
        accuracy = _right(vlm, images, [text for text, _ in asked], yes)
        rows.append((name, _percent(accuracy)))
    return Table("Visual prompts, solid", ("drawing", "held-out scenes"), rows)


def generator_tables(generator: Generator, count: int) -> list[Table]:
    """Measured by pixels: fully described scenes, and what "a circle" leaves to the noise."""
    images, classes = described(generator, count)
    measured = [measure(image) for image in images]
    agree = np.array([_agreement(m, c) for m, c in zip(measured, classes, strict=True)])
    rows = [(name, _percent(agree[:, j].mean())) for j, name in enumerate(NAMES)]
    four = [NAMES.index(name) for name in ("color", "shape", "background", "horizon")]
    rows += [
        ("color, shape, background and horizon at once", _percent(agree[:, four].all(1).mean())),
        ("all at once", _percent(agree.all(1).mean())),
        ("one whole shape in the world", _percent(np.mean([m is not None for m in measured]))),
    ]
    circles = generator.sample("a circle", range(1000, 1000 + count))
    colors = Counter(m.color if m else None for m in map(measure, circles))
    shares = [(c, _percent(colors[c] / count)) for c in ATTRIBUTES["color"]]
    shares.append(("none of these", _percent(colors[None] / count)))
    return [
        Table("Fully described scenes, one step", ("as described", "share"), rows),
        Table('Colors of "a circle"', ("color", "share"), shares),
    ]


@dataclass(frozen=True)
class Trial:
    """One task with one training seed: its cells in both tables."""

    learned: tuple[str, ...]
    changed: tuple[str, ...]


def task_tables(
    seeds: Sequence[int], guard: GuardOptions | None, processes: int
) -> tuple[Table, Table]:
    """Each task on each training seed, on 64 held-out seeds: what it learned, and what else it
    changed. Success is by pixels."""
    asked = [(name, seed, guard) for name in TASKS for seed in seeds]
    # Each process is a new interpreter, since torch's threads don't survive a fork.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        trials = []
        for trial in pool.imap(_trial, asked):
            print(*trial.learned, "|", *trial.changed[2:], flush=True)
            trials.append(trial)
    steps = load_presets().generator(GENERATOR).optimizer.steps
    return (
        Table(
            f"What the pair can learn: {steps} steps, 64 held-out seeds",
            _LEARNED,
            [trial.learned for trial in trials],
        ),
        Table(
            "What else it changes: spread over the seeds ×, mean move in sd",
            _CHANGED,
            [trial.changed for trial in trials],
        ),
    )


def _trial(asked: tuple[str, int, GuardOptions | None]) -> Trial:
    name, seed, guard = asked
    torch.set_num_threads(1)
    (generator, vlm, pair), task = _models(), TASKS[name]
    outcome = optimize(pair, task, seed, guard=guard)
    both = (outcome.base, outcome.learnt)
    success = [np.mean([task.success(i) for i in images]) for images in both]
    whole = np.mean([measure(i) is not None for i in outcome.learnt])
    probability = [
        np.mean([vlm.probability(i, *pair, task.visual_prompt) for pair in task.questions])
        for i in both
    ]
    errors = [np.abs(generator.reconstruct(i).astype(float) - i).mean() for i in both]
    kept = unasked(list(outcome.base), list(outcome.learnt))
    return Trial(
        (
            name,
            str(seed),
            *map(_percent, success),
            *(f"{p:.3f}" for p in probability),
            _percent(whole),
            f"{errors[1] / errors[0]:.2f}",
        ),
        (
            name,
            str(seed),
            f"{diversity(list(outcome.base), list(outcome.learnt)):.2f}",
            *_changed(kept, task.asks),
        ),
    )


@cache
def _models() -> tuple[Generator, Vlm, Pair]:
    return Generator(), Vlm(), Pair.load(GENERATOR, VLM)


def _changed(kept: Unasked | None, asked: frozenset[str]) -> Iterator[str]:
    """A cell for each column after the diversity; a dash for what the task asks about."""
    if kept is None:
        yield from ["none whole"] * (1 + len(MEASURES))
        return
    yield "–" if "color" in asked else _percent(kept.color_kept)
    for name in MEASURES:
        moved = kept.moved[name]
        yield "–" if name in asked else f"{moved.spread:.2f}, {moved.move:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--off", action="store_true", help="the tasks without the guard")
    parser.add_argument("--processes", type=int, default=1, help="for the tasks, one core each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count = 128 if options.quick else 512
    generator, vlm = Generator(), Vlm()
    about_vlm = [vlm_table(generator, vlm, count), visual_prompt_table(vlm, count)]
    about_generator = generator_tables(generator, count)
    for table in [*about_vlm, *about_generator]:
        print(table.markdown(), flush=True)
    guard = OFF if options.off else None
    tasks = task_tables([1] if options.quick else [1, 2, 3], guard, options.processes)
    for table in tasks:
        print(table.markdown())
    if not (options.quick or options.off):
        _write_card(MODELS / "tiny-idefics2" / "README.md", about_vlm)
        _write_card(MODELS / "tiny-flux" / "README.md", [*about_generator, *tasks])


def _accuracy(vlm: Vlm, images: Images, kind: str, classes: Ints) -> float:
    rng = np.random.default_rng(103)
    asked = [q.ask(rng, kind, row) for row in classes]
    return _right(vlm, images, [one.text for one in asked], [one.yes for one in asked])


def _right(vlm: Vlm, images: Images, asked: Sequence[str], yes: Sequence[bool]) -> float:
    answers: list[str] = []
    for begin in range(0, len(images), 128):
        part = slice(begin, begin + 128)
        answers += vlm.answer(images[part], asked[part])
    return float(np.mean([a == ("Yes" if y else "No") for a, y in zip(answers, yes, strict=True)]))


def _agreement(measured: Measured | None, classes: Ints) -> list[bool]:
    if measured is None:
        return [False] * len(NAMES)
    return [
        getattr(measured, name) == ATTRIBUTES[name][int(classes[j])] for j, name in enumerate(NAMES)
    ]


def _percent(share: float | np.floating[Any]) -> str:
    return f"{100 * share:.1f} %"


def _write_card(path: Path, tables: Sequence[Table]) -> None:
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join(table.markdown() for table in tables)
    path.write_text(f"{before}{BEGIN}\n{body}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
