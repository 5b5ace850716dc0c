"""Several questions and a caption about each image, packed into one row of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from models.training import questions as q
from models.training.captions import full_caption
from models.training.chances import VOID
from models.training.tokenizers import (
    AROUND_IMAGE,
    END_OF_UTTERANCE,
    IMAGE,
    chat,
    vlm_tokenizer,
)
from models.training.vlm_examples import Example
from models.training.world import NAMES, Ints

IMAGE_TOKENS = 8
QUESTIONS_EACH = 4

# Kinds of questions that are learnt slowly are asked more often.
_ODDS = {"color": 4.0, "shape": 4.0, "horizontal": 3.0}


@dataclass(frozen=True)
class Batch:
    """Rows with an image first, then segments that see the image but not each other."""

    pixel_values: torch.Tensor  # (B, 1, 3, 64, 64) in [−1, 1]
    input_ids: torch.Tensor  # (B, T)
    position_ids: torch.Tensor  # (B, T)
    attention_mask: torch.Tensor  # (B, 1, T, T) additive
    predict: torch.Tensor  # (M, 2) row and column before each learnt token
    targets: torch.Tensor  # (M,)
    chances: torch.Tensor  # (M,) that Yes is right, where the token is an answer
    is_answer: torch.Tensor  # (M,) Yes or No, as against a caption's words
    classes: torch.Tensor  # (B, 13) attributes and drawings; −1 where there is nothing to say


def pack(rng: np.random.Generator, shown: list[Example]) -> Batch:
    """Writes questions and a caption for each example, and packs them."""
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
    """The ids of a question and its answer, how many of them, at the end, are learnt, and how
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
