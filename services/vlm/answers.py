"""How likely the right answers are, given image features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import cross_entropy

from services.common.transfer import fetch, upload
from services.vlm.families.base import VlmFamily
from services.vlm.packing import Packed, Row


@dataclass(frozen=True)
class Answer:
    """One question about one image. ``loss`` is the mean cross-entropy of the right answer's
    tokens in nats; exp(-loss) is their geometric mean, VQAScore (Lin et al., 2024)."""

    loss: float
    joint_probability: float
    geometric_mean_probability: float
    predicted: str


@dataclass(frozen=True)
class Tokens:
    """The right answers' tokens: cross-entropy [tokens], float32, detached, and the most likely
    ids [tokens], int32. ``lengths``: how many belong to the conversation of each of
    ``numbers``."""

    losses: torch.Tensor
    predicted: torch.Tensor
    lengths: list[int]
    numbers: Sequence[int]


def losses(
    vlm: VlmFamily, features: torch.Tensor, rows: Sequence[Row]
) -> tuple[torch.Tensor, Tokens]:
    """Loss of each conversation of ``rows``, in their order: [n], float32, attached to
    ``features``, from which each row takes its own; and what the answers are read from.

    Logits are computed at the answers' positions only. Nothing waits for the device.
    """
    device = features.device
    packed = Packed.of([row.tree for row in rows])
    places = [row.features for row in rows]
    if places != list(range(len(features))):
        features = features[upload(torch.tensor(places), device)]
    hidden = vlm.hidden_states(packed, features)

    length = packed.input_ids.shape[1]
    before: list[int] = []
    targets: list[int] = []
    lengths: list[int] = []
    for index, row in enumerate(rows):
        for talk, path in zip(row.tree.conversations, row.tree.paths, strict=True):
            # The logits of a token stand one position before it.
            before += [index * length + path[position - 1] for position in talk.answer_positions]
            targets += [talk.input_ids[position] for position in talk.answer_positions]
            lengths.append(len(talk.answer_positions))
    answering = hidden.flatten(0, 1)[upload(torch.tensor(before), hidden.device)]
    logits = vlm.logits(answering).float()
    right = upload(torch.tensor(targets), device)
    token_losses = cross_entropy(logits, right, reduction="none")
    tokens = Tokens(
        token_losses.detach(),
        logits.detach().argmax(-1).int(),
        lengths,
        [number for row in rows for number in row.numbers],
    )
    return torch.stack([one.mean() for one in torch.split(token_losses, lengths)]), tokens


def fetched(passes: Sequence[Tokens]) -> list[Tokens]:
    """On the host, after one wait."""
    host = iter(fetch([each for tokens in passes for each in (tokens.losses, tokens.predicted)]))
    return [replace(tokens, losses=next(host), predicted=next(host)) for tokens in passes]


def answers(vlm: VlmFamily, passes: Iterable[Tokens]) -> list[Answer]:
    """The answers, in the order of their conversations. The tokens are on the host."""
    read: dict[int, Answer] = {}
    for tokens in passes:
        split = zip(
            tokens.numbers,
            torch.split(tokens.losses, tokens.lengths),
            torch.split(tokens.predicted, tokens.lengths),
            strict=True,
        )
        for number, token_losses, predicted in split:
            read[number] = _answer(vlm, token_losses, predicted)
    return [read[number] for number in sorted(read)]


def _answer(vlm: VlmFamily, token_losses: torch.Tensor, predicted: torch.Tensor) -> Answer:
    return Answer(
        loss=token_losses.mean().item(),
        joint_probability=(-token_losses.sum()).exp().item(),
        geometric_mean_probability=(-token_losses.mean()).exp().item(),
        predicted=vlm.tokenizer.decode(predicted, skip_special_tokens=True).strip(),
    )
