"""How likely the right answers are, given image features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from services.vlm.conversation import Conversation
from services.vlm.families.base import VlmFamily


@dataclass(frozen=True)
class Answer:
    """One question about one image. ``loss`` is the mean cross-entropy of the right answer's
    tokens in nats; exp(-loss) is their geometric mean, VQAScore (Lin et al., 2024)."""

    loss: float
    joint_probability: float
    geometric_mean_probability: float
    predicted: str


def losses(
    vlm: VlmFamily, features: torch.Tensor, conversations: Sequence[Conversation]
) -> tuple[torch.Tensor, list[Answer]]:
    """Loss of each conversation [n], float32, attached to ``features``, and the answers.

    ``features`` [n, …] belong to ``conversations`` one by one. Logits are computed
    at the answers' positions only.
    """
    device = features.device
    rows = [torch.tensor(conversation.input_ids) for conversation in conversations]
    input_ids = pad_sequence(rows, batch_first=True).to(device)
    attention_mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    hidden = vlm.hidden_states(input_ids, attention_mask.to(device), features)

    row_of = [i for i, talk in enumerate(conversations) for _ in talk.answer_positions]
    position_of = [p for talk in conversations for p in talk.answer_positions]
    # The logits of a token stand one position before it.
    before = torch.tensor(position_of, device=device) - 1
    logits = vlm.logits(hidden[torch.tensor(row_of, device=device), before]).float()
    targets = input_ids[row_of, position_of]
    token_losses = cross_entropy(logits, targets, reduction="none")

    lengths = [len(talk.answer_positions) for talk in conversations]
    per_answer = torch.split(token_losses, lengths)
    predicted = torch.split(logits.argmax(-1), lengths)
    answers = [
        _answer(vlm, tokens.detach(), best)
        for tokens, best in zip(per_answer, predicted, strict=True)
    ]
    return torch.stack([tokens.mean() for tokens in per_answer]), answers


def passes(vlm: VlmFamily, conversations: Sequence[Conversation]) -> Iterator[slice]:
    """The conversations in parts. Each part goes through the text model in one pass; the preset
    sets its size."""
    at_once = vlm.preset.conversations_at_once
    for begin in range(0, len(conversations), at_once):
        yield slice(begin, begin + at_once)


def _answer(vlm: VlmFamily, token_losses: torch.Tensor, predicted: torch.Tensor) -> Answer:
    return Answer(
        loss=token_losses.mean().item(),
        joint_probability=(-token_losses.sum()).exp().item(),
        geometric_mean_probability=(-token_losses.mean()).exp().item(),
        predicted=vlm.tokenizer.decode(predicted, skip_special_tokens=True).strip(),
    )
