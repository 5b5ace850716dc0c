"""The VLM's examples: images, and how likely each answer about them is right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.training import questions as q
from models.training.chances import VOID, aligned, limited
from models.training.pools import Pool, pool_of
from models.training.variations import (
    between,
    bled,
    blurred,
    crowded,
    ghosts,
    jittered,
    random_scenes,
    strange_backgrounds,
    warped,
    without_shape,
)
from models.training.visual_prompts import line, overlay, palette
from models.training.world import (
    BACKGROUND,
    COLOR,
    NAMES,
    SIDE,
    Bools,
    Floats,
    Ints,
    Scenes,
    compose,
    render,
    to_uint8,
)


@dataclass(frozen=True)
class Example:
    """One image (64, 64, 3) in [0, 1], and what is asked about it.

    `chances` are the probabilities of each value of each attribute. If `one_shape` is false, the
    answer to each question about the shape is No; if `of_world` is false, to every question.
    `special` is a visual prompt's question, and how likely Yes is right. `drawn` is the eighth of
    the image with the line, the palette's color, and its background.
    """

    image: Floats
    chances: list[Floats]
    one_shape: bool = True
    of_world: bool = True
    special: tuple[str, float] | None = None
    drawn: tuple[int, int, int] = (-1, -1, -1)

    @property
    def classes(self) -> Ints:
        """(8,): the likeliest value of each attribute."""
        return np.array([of_each.argmax() for of_each in self.chances])

    def surely(self, least: float) -> Bools:
        """(8,): which attributes have a value with at least this probability."""
        return np.array([of_each.max() > least for of_each in self.chances])


def examples(rng: np.random.Generator, count: int, pools: list[Pool]) -> list[Example]:
    """`count` examples: the world, visual prompts, odd images, and images from `pools`."""
    makers = [_plain, _between, _with_line, _with_palette, _empty, _broken, _strange, _bled]
    odds = np.array([0.14, 0.2, 0.17, 0.17, 0.03, 0.14, 0.06, 0.09])
    from_pools = int(rng.binomial(count, 0.4)) if pools else 0
    numbers = rng.multinomial(count - from_pools, odds)
    made = [e for make, n in zip(makers, numbers, strict=True) if n for e in make(rng, int(n))]
    made += [_from_pool(rng, pools[int(rng.integers(len(pools)))]) for _ in range(from_pools)]
    return [_noisy(e, rng) if rng.random() < 0.4 else e for e in made]


def _scenes(rng: np.random.Generator, count: int) -> Scenes:
    scenes = random_scenes(rng, count)
    return jittered(scenes, rng, float(rng.choice([0.0, 0.5, 1.0])))


def _drawn(scenes: Scenes) -> Pool:
    return pool_of(to_uint8(render(scenes)), scenes)


def _plain(rng: np.random.Generator, count: int) -> list[Example]:
    return _examples(_drawn(_scenes(rng, count)))


def _between(rng: np.random.Generator, count: int) -> list[Example]:
    return _examples(_drawn(between(rng, count)))


def line_examples(rng: np.random.Generator, shown: Pool) -> list[Example]:
    """The images with a red line over them: within 1.5 pixels of the horizon, or at least 5
    away."""
    made = []
    examples = zip(_examples(shown), shown.horizon, shown.natural, strict=True)
    for one, horizon, natural in examples:
        yes = bool(rng.random() < 0.5)
        rows = np.arange(6, SIDE - 5)
        away = np.abs(rows - horizon)
        reach = 12 if rng.random() < 0.5 else SIDE
        wanted = rows[away <= 1.5 if yes else (away >= 5) & (away <= reach)]
        # If the horizon is at the image's edge, no line can be near it.
        row = int(rng.choice(wanted if len(wanted) else rows))
        chance = aligned(abs(row - float(horizon)), float(natural)) if one.of_world else VOID
        made.append(
            replace(
                one,
                image=overlay(one.image, line(row)),
                special=(q.LINE_QUESTION, chance),
                drawn=(row * 8 // SIDE, -1, -1),
            )
        )
    return made


def palette_examples(rng: np.random.Generator, shown: Pool) -> list[Example]:
    """The images with a strip of their own colours, or of a scene with other colours."""
    count = len(shown)
    classes = shown.classes
    others = classes.copy()
    which = rng.integers(3, size=count)
    others[:, COLOR] = (others[:, COLOR] + np.where(which != 1, rng.integers(1, 6, count), 0)) % 6
    others[:, BACKGROUND] ^= which != 0
    yes = rng.random(count) < 0.5
    source = np.where(yes[:, None], classes, others)
    scenes = compose(source, rng.random((count, len(NAMES)), dtype=np.float32))
    drawn = pool_of(shown.images, scenes).palette
    exact = yes & (rng.random(count) < 0.3)
    drawn = np.where(exact[:, None, None], shown.palette, drawn)
    drawn = np.clip(drawn + rng.integers(-6, 7, drawn.shape), 0, 254).astype(np.uint8)
    each = np.arange(count)
    match = shown.chances[COLOR][each, source[:, COLOR]]
    match = match * shown.chances[BACKGROUND][each, source[:, BACKGROUND]]
    match = np.where(shown.one_shape, limited(np.where(exact, 1.0, match)), VOID)
    return [
        replace(
            one,
            image=overlay(one.image, palette(swatches)),
            special=(q.PALETTE_QUESTION, float(chance)),
            drawn=(-1, int(theirs[COLOR]), int(theirs[BACKGROUND])),
        )
        for one, swatches, chance, theirs in zip(
            _examples(shown), drawn, match, source, strict=True
        )
    ]


def _floats(shown: Pool) -> Floats:
    return np.asarray(shown.images / 255, np.float32)


def _any(rng: np.random.Generator, count: int) -> Pool:
    """Scenes of the world. Some are between its classes, or have strange skies."""
    kind = rng.random()
    if kind < 1 / 3:
        return _drawn(between(rng, count))
    scenes = _scenes(rng, count)
    return _drawn(strange_backgrounds(scenes, rng) if kind < 1 / 2 else scenes)


def _with_line(rng: np.random.Generator, count: int) -> list[Example]:
    return line_examples(rng, _any(rng, count))


def _with_palette(rng: np.random.Generator, count: int) -> list[Example]:
    return palette_examples(rng, _any(rng, count))


def _empty(rng: np.random.Generator, count: int) -> list[Example]:
    scenes = _scenes(rng, count)
    images = without_shape(scenes)
    return [
        replace(one, image=image, one_shape=False)
        for one, image in zip(_examples(_drawn(scenes)), images, strict=True)
    ]


def _broken(rng: np.random.Generator, count: int) -> list[Example]:
    scenes = _scenes(rng, count)
    spoil = [crowded, ghosts, blurred, warped, warped][int(rng.integers(5))]
    return [
        replace(one, image=image, one_shape=False, of_world=False)
        for one, image in zip(_examples(_drawn(scenes)), spoil(scenes, rng), strict=True)
    ]


def _strange(rng: np.random.Generator, count: int) -> list[Example]:
    scenes = strange_backgrounds(_scenes(rng, count), rng)
    far = np.abs(scenes.fill - scenes.sky).max(1) > 0.35
    far &= np.abs(scenes.fill - scenes.ground).max(1) > 0.35
    return [one for one, clear in zip(_examples(_drawn(scenes)), far, strict=True) if clear]


def _bled(rng: np.random.Generator, count: int) -> list[Example]:
    """Pictures with spreading colours. The more they spread, the less likely is each answer."""
    scenes = _scenes(rng, count)
    images, strength = bled(scenes, rng)
    left = np.exp(-((strength / 0.3) ** 2))
    return [
        replace(
            one, image=image, chances=[VOID + (of_each - VOID) * share for of_each in one.chances]
        )
        for one, image, share in zip(_examples(_drawn(scenes)), images, left, strict=True)
    ]


def _from_pool(rng: np.random.Generator, pool: Pool) -> Example:
    shown = pool[rng.integers(len(pool), size=1)]
    drawing = rng.random()
    if drawing < 0.25:
        return line_examples(rng, shown)[0]
    if drawing < 0.5:
        return palette_examples(rng, shown)[0]
    return _examples(shown)[0]


def _examples(shown: Pool) -> list[Example]:
    return [
        Example(
            image=image,
            chances=[of_each[i] for of_each in shown.chances],
            one_shape=bool(whole),
            of_world=bool(whole),
        )
        for i, (image, whole) in enumerate(zip(_floats(shown), shown.one_shape, strict=True))
    ]


def _noisy(shown: Example, rng: np.random.Generator) -> Example:
    """The example with grain and blotches, like those of an uncertain generator."""
    grain = rng.normal(0, rng.uniform(0, 0.12), shown.image.shape)
    coarse = rng.normal(0, rng.uniform(0, 0.08), (8, 8, 3))
    blotches = np.repeat(np.repeat(coarse, SIDE // 8, axis=0), SIDE // 8, axis=1)
    image = np.clip(shown.image + grain + blotches, 0, 1)
    return replace(shown, image=image.astype(np.float32))
