"""What the VLM is shown: images with several questions and a caption each, packed into one row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from models.training import questions as q
from models.training.captions import full_caption
from models.training.chances import VOID, aligned, limited
from models.training.pools import Pool, pool_of
from models.training.tokenizers import (
    AROUND_IMAGE,
    END_OF_UTTERANCE,
    IMAGE,
    chat,
    vlm_tokenizer,
)
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

IMAGE_TOKENS = 8
QUESTIONS_EACH = 4

# What is slow to learn is asked more often.
_ODDS = {"color": 4.0, "shape": 4.0, "horizontal": 3.0}


@dataclass(frozen=True)
class Example:
    """One image (64, 64, 3) in [0, 1] with what is asked about it.

    `chances` say for each attribute how likely it is each value. Where `one_shape` is false, each
    question about the shape is answered No; where `of_world` is false, every one. `special` is a
    visual prompt's question and how likely Yes is right; `drawn` is the line's eighth of the
    image, the palette's color and its background.
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
        """(8,): which attributes have a value as likely as that."""
        return np.array([of_each.max() > least for of_each in self.chances])


@dataclass(frozen=True)
class Batch:
    """Rows of a shared image prefix followed by segments that can't see each other."""

    pixel_values: torch.Tensor  # (B, 1, 3, 64, 64) in [−1, 1]
    input_ids: torch.Tensor  # (B, T)
    position_ids: torch.Tensor  # (B, T)
    attention_mask: torch.Tensor  # (B, 1, T, T) additive
    predict: torch.Tensor  # (M, 2) row and column before each learnt token
    targets: torch.Tensor  # (M,)
    chances: torch.Tensor  # (M,) that Yes is right, where the token is an answer
    is_answer: torch.Tensor  # (M,) Yes or No, as against a caption's words
    classes: torch.Tensor  # (B, 13) attributes and drawings; −1 where there is nothing to say


def examples(rng: np.random.Generator, count: int, pools: list[Pool]) -> list[Example]:
    """`count` examples: the world, visual prompts, odd images, and images from `pools`."""
    makers = [_plain, _between, _with_line, _with_palette, _empty, _broken, _strange, _bled]
    odds = np.array([0.14, 0.2, 0.17, 0.17, 0.03, 0.14, 0.06, 0.09])
    from_pools = int(rng.binomial(count, 0.4)) if pools else 0
    numbers = rng.multinomial(count - from_pools, odds)
    made = [e for make, n in zip(makers, numbers, strict=True) if n for e in make(rng, int(n))]
    made += [_from_pool(rng, pools[int(rng.integers(len(pools)))]) for _ in range(from_pools)]
    return [_noisy(e, rng) if rng.random() < 0.4 else e for e in made]


def pack(rng: np.random.Generator, shown: list[Example]) -> Batch:
    """Writes questions and a caption for each example and packs them."""
    prefix = _prefix()
    rows = [_segments(rng, e) for e in shown]
    length = len(prefix) + max(sum(len(ids) for ids, *_ in row) for row in rows)
    ids = np.zeros((len(rows), length), np.int64)
    positions = np.zeros((len(rows), length), np.int64)
    segment = np.full((len(rows), length), -1, np.int64)
    predict: list[tuple[int, int]] = []
    targets: list[int] = []
    answers: list[bool] = []
    yes: list[float] = []
    for i, row in enumerate(rows):
        ids[i, : len(prefix)] = prefix
        positions[i, : len(prefix)] = np.arange(len(prefix))
        segment[i, : len(prefix)] = 0
        at = len(prefix)
        for number, (tokens, learnt, chance) in enumerate(row, start=1):
            end = at + len(tokens)
            ids[i, at:end] = tokens
            positions[i, at:end] = len(prefix) + np.arange(len(tokens))
            segment[i, at:end] = number
            predict += [(i, column - 1) for column in range(end - learnt, end)]
            targets += tokens[-learnt:]
            answers += [learnt == 2] + [False] * (learnt - 1)
            yes += [chance] * learnt
            at = end
    visible = (segment[:, None, :] == segment[:, :, None]) | (segment[:, None, :] == 0)
    visible &= np.tri(length, dtype=np.bool_)
    mask = np.where(visible, 0.0, np.finfo(np.float32).min).astype(np.float32)
    images = np.stack([e.image for e in shown]).transpose(0, 3, 1, 2)[:, None]
    classes = np.stack([_known(e) for e in shown])
    return Batch(
        pixel_values=torch.from_numpy(np.ascontiguousarray(images)) * 2 - 1,
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        attention_mask=torch.from_numpy(mask[:, None]),
        predict=torch.tensor(predict),
        targets=torch.tensor(targets),
        chances=torch.tensor(yes),
        is_answer=torch.tensor(answers),
        classes=torch.from_numpy(classes),
    )


def _known(shown: Example) -> Ints:
    drawings = [-1, -1]
    if shown.special:
        text, chance = shown.special
        drawings[text == q.PALETTE_QUESTION] = int(chance > 0.5)
    known = shown.surely(0.8) & shown.one_shape
    attributes = np.where(known, shown.classes, -1)
    return np.concatenate([attributes, drawings, shown.drawn]).astype(np.int64)


@cache
def tokenizer() -> Any:
    return vlm_tokenizer()


def _prefix() -> tuple[int, ...]:
    return _ids(f"User:{AROUND_IMAGE}{IMAGE * IMAGE_TOKENS}{AROUND_IMAGE}")


@cache
def _ids(text: str) -> tuple[int, ...]:
    return tuple(tokenizer()(text)["input_ids"])


def _segment(question: str, answer: str, chance: float = 0.0) -> tuple[list[int], int, float]:
    """The ids after the image for a question and answer, how many at the end are learnt, and how
    likely Yes is right."""
    asked = _ids(chat(question).replace(IMAGE, "", 1))[3:]
    answered = _ids(f"{answer}{END_OF_UTTERANCE}")[1:]
    return [*asked, *answered], len(answered), chance


def yes_and_no() -> tuple[int, int]:
    """The tokens of the two answers."""
    return _ids("Yes")[1], _ids("No")[1]


def _segments(rng: np.random.Generator, shown: Example) -> list[tuple[list[int], int, float]]:
    asked: list[tuple[str, float]] = []
    kinds = tuple(q.WORDINGS)
    odds = np.array([_ODDS.get(kind, 1.0) for kind in kinds])
    for kind in rng.choice(kinds, QUESTIONS_EACH, replace=False, p=odds / odds.sum()):
        confuse = 0.1 if kind in ("color", "size", "outline") else 0.0
        one = q.ask(rng, str(kind), shown.classes, confuse_shape=confuse)
        asks_of_something = shown.of_world and (shown.one_shape or kind not in q.ABOUT_THE_SHAPE)
        chance = VOID
        if asks_of_something and one.value is not None:
            chance = float(shown.chances[NAMES.index(str(kind))][one.value])
        asked.append((one.text, chance))
    if shown.special:
        asked[0] = shown.special
    segments = [
        _segment(
            f"{text} {q.POSTFIX}" if rng.random() < 0.9 else text,
            "Yes" if chance > 0.5 else "No",
            chance,
        )
        for text, chance in asked
    ]
    if shown.one_shape and shown.surely(0.9).all():
        segments.append(_segment(q.DESCRIBE, full_caption(shown.classes)))
    return segments


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
    """The images under a red line: on the horizon (within 1.5 pixels) or at least 5 away."""
    made = []
    examples = zip(_examples(shown), shown.horizon, shown.natural, strict=True)
    for one, horizon, natural in examples:
        yes = bool(rng.random() < 0.5)
        rows = np.arange(6, SIDE - 5)
        away = np.abs(rows - horizon)
        reach = 12 if rng.random() < 0.5 else SIDE
        wanted = rows[away <= 1.5 if yes else (away >= 5) & (away <= reach)]
        # A horizon at the image's very edge has no line near it.
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
    """The images over a strip of their own colours, or of a scene with other ones."""
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
    """Scenes of the world; at times between its classes, or before strange skies."""
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
    """The stronger, the less likely is anything of them."""
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
    """Grain, and blotches as of a generator that isn't sure."""
    grain = rng.normal(0, rng.uniform(0, 0.12), shown.image.shape)
    coarse = rng.normal(0, rng.uniform(0, 0.08), (8, 8, 3))
    blotches = np.repeat(np.repeat(coarse, SIDE // 8, axis=0), SIDE // 8, axis=1)
    image = np.clip(shown.image + grain + blotches, 0, 1)
    return replace(shown, image=image.astype(np.float32))
