"""Conversations about one image as one row of the text model, which computes what they share once.

The ids of a row are a tree: conversations part where their ids differ. The tree is written in
preorder, so the tokens below a token follow it, up to ``last``; a token sees those above it and
itself, as in its own conversation. Its position is its depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from services.vlm.conversation import Conversation

#: A mask grows with the square of a row: so many tokens, beyond its first conversation's, are the
#: most in one.
_MOST_BEYOND = 4096


@dataclass(frozen=True, eq=False)
class Tree:
    """``ids``, ``depths`` and ``last`` have an entry for each token; ``paths`` one for each
    conversation, with the place of each of its tokens. The last token of several conversations is
    left out: nothing is asked behind it."""

    ids: Sequence[int]
    depths: Sequence[int]
    last: Sequence[int]
    paths: Sequence[Sequence[int]]
    conversations: Sequence[Conversation]

    @property
    def branches(self) -> bool:
        """Whether it is more than one line, for which the causal mask would do."""
        return self.depths[-1] != len(self.ids) - 1


@dataclass(frozen=True)
class Row:
    """A tree about the image with these features. ``numbers`` are its conversations' in the
    caller's list."""

    features: int
    numbers: Sequence[int]
    tree: Tree


def tree(conversations: Sequence[Conversation]) -> Tree:
    """The tree of conversations about one image."""
    kept = [talk.input_ids[: -1 if len(conversations) > 1 else None] for talk in conversations]
    # In the order of their ids, those with the same beginning are neighbours.
    order = sorted(range(len(kept)), key=lambda i: list(kept[i]))
    ids: list[int] = []
    depths: list[int] = []
    paths: dict[int, list[int]] = {}
    before: Sequence[int] = []
    path: list[int] = []
    for i in order:
        talk = kept[i]
        shared = _shared(before, talk)
        path = [*path[:shared], *range(len(ids), len(ids) + len(talk) - shared)]
        ids += talk[shared:]
        depths += range(shared, len(talk))
        paths[i], before = path, talk
    last = list(range(len(ids)))
    for path in paths.values():
        for place in path:
            last[place] = max(last[place], path[-1])
    return Tree(ids, depths, last, [paths[i] for i in range(len(paths))], conversations)


def rows(conversations: Sequence[Conversation], features: Sequence[int], at_once: int) -> list[Row]:
    """The rows of conversations about images with these features, one for each conversation.

    A row has at most ``at_once`` conversations. Rows of the same conversations have the same tree.
    """
    by_features: dict[int, list[int]] = {}
    for number, index in enumerate(features):
        by_features.setdefault(index, []).append(number)
    trees: dict[tuple[int, ...], Tree] = {}
    made = []
    for index, numbers in by_features.items():
        for part in _parts(conversations, numbers, at_once):
            talks = [conversations[number] for number in part]
            key = tuple(id(talk) for talk in talks)
            trees[key] = trees.get(key) or tree(talks)
            made.append(Row(index, part, trees[key]))
    return made


def passes(rows: Sequence[Row], at_once: int) -> Iterator[Sequence[Row]]:
    """The rows in parts of at most ``at_once`` conversations, each for one pass of the text
    model."""
    part: list[Row] = []
    for row in rows:
        if sum(len(one.numbers) for one in [*part, row]) > at_once:
            yield part
            part = []
        part.append(row)
    yield part


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of one pass, padded on the right; on the host. ``depths`` and ``last`` as in ``Tree``.
    What is padded sees only itself, and is seen by nothing.

    ``input_ids``, ``depths``, ``last``: [rows, length].
    """

    trees: Sequence[Tree]
    input_ids: torch.Tensor
    depths: torch.Tensor
    last: torch.Tensor

    @classmethod
    def of(cls, trees: Sequence[Tree]) -> Packed:
        length = max(len(one.ids) for one in trees)

        def padded(values: Sequence[int], padding: Sequence[int]) -> list[int]:
            return [*values, *padding[len(values) :]]

        zeros, places = [0] * length, list(range(length))
        return cls(
            trees,
            torch.tensor([padded(one.ids, zeros) for one in trees]),
            torch.tensor([padded(one.depths, zeros) for one in trees]),
            torch.tensor([padded(one.last, places) for one in trees]),
        )

    @property
    def same(self) -> bool:
        """Whether all rows have the same tree."""
        return all(one is self.trees[0] for one in self.trees)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _parts(
    conversations: Sequence[Conversation], numbers: Sequence[int], at_once: int
) -> Iterator[list[int]]:
    part: list[int] = []
    beyond = 0
    for number in numbers:
        ids = conversations[number].input_ids
        added = len(ids) - _shared(conversations[part[0]].input_ids, ids) if part else 0
        if part and (len(part) == at_once or beyond + added > _MOST_BEYOND):
            yield part
            part, beyond, added = [], 0, 0
        part.append(number)
        beyond += added
    yield part
