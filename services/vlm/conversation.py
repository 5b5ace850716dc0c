"""A question and its right answer as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.common.errors import InvalidInput
from services.vlm.visual_prompt import VisualPrompt


@dataclass(frozen=True)
class AskedQuestion:
    """A question about every image. ``weight`` is how much its loss counts, compared with the
    others'; error messages name it by ``field``."""

    question: str
    answer: str
    visual_prompt: VisualPrompt | None = None
    weight: float = 1.0
    field: str = "questions.0"


@dataclass(frozen=True)
class Conversation:
    """``input_ids`` up to the answer's end; ``answer_positions`` are the answer's indices in it."""

    input_ids: Sequence[int]
    answer_positions: Sequence[int]


def with_postfix(question: str, postfix: str) -> str:
    """The question as the VLM gets it: the postfix follows after one space, unless it is empty."""
    return f"{question} {postfix}" if postfix else question


def prompt(chat: str, image: str, question: str) -> str:
    """The conversation up to the place where the answer begins.

    ``chat`` holds ``{image}`` and ``{question}`` once each; ``image`` is the expanded placeholder.
    """
    before, _, after = chat.partition("{image}")
    return before + image + after.replace("{question}", question)


def tokenize(tokenizer: Any, prefix: str, asked: AskedQuestion) -> Conversation:
    """``prefix`` and ``prefix`` + answer, each tokenised whole, since tokens may join where they
    meet: the answer is where the two differ, and everything beyond the prefix.

    Raises ``InvalidInput`` for an answer that adds no token.
    """
    prefix_ids = ids(tokenizer, prefix)
    input_ids = ids(tokenizer, prefix + asked.answer)
    positions = [
        index
        for index, token in enumerate(input_ids)
        if index >= len(prefix_ids) or token != prefix_ids[index]
    ]
    if not positions:
        raise InvalidInput(f"{asked.field}.answer: {asked.answer!r} is no token of this model")
    return Conversation(input_ids, positions)


def refuse_control_tokens(tokenizer: Any, text: str, field: str) -> None:
    """Raises ``InvalidInput`` if a user's text would act as a token like ``<image>``."""
    added = tokenizer.added_tokens_decoder.values()
    for token in {token.content for token in added if token.special}:
        if token in text:
            raise InvalidInput(f"{field}: {token!r} is a control token of this model; leave it out")


def ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids with exactly one BOS, if the tokenizer has one, even if the template writes it."""
    tokens: list[int] = tokenizer(text)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and tokens[:2] == [bos, bos]:
        return tokens[1:]
    return tokens
