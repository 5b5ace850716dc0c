"""What base models were found to be able to do already: their scores by what was asked of them.

A score is an owner's own, and is forgotten after some days: a preset can change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from dualprocess.schemas import BaseScore, ImageSettings, Question
from services.orchestrator.store import redis as keys

KEPT_SECONDS = 7 * 86400


@dataclass(frozen=True)
class Asked:
    """What a score of the base model is about."""

    generator: str
    prompt: str
    image: ImageSettings
    questions: Sequence[Question]
    question_postfix: str
    vlm: str

    def digest(self) -> str:
        """Drawings are part of it, so it can take long."""
        told = {
            "generator": self.generator,
            "prompt": self.prompt,
            "image": self.image.model_dump(mode="json"),
            "questions": [one.model_dump(mode="json") for one in self.questions],
            "question_postfix": self.question_postfix,
            "vlm": self.vlm,
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class BaseScores:
    def __init__(self, redis: keys.Client) -> None:
        self._redis = redis

    async def remember(self, owner: str, digest: str, score: BaseScore) -> None:
        """Keeps a score, unless one of more images is known."""
        known = await self.recall(owner, digest)
        if known is None or known.images <= score.images:
            key = keys.base_score_key(owner, digest)
            await self._redis.set(key, score.model_dump_json(), ex=KEPT_SECONDS)

    async def recall(self, owner: str, digest: str) -> BaseScore | None:
        found = await self._redis.get(keys.base_score_key(owner, digest))
        try:
            return BaseScore.model_validate_json(found) if found else None
        except ValueError:
            # Another version's: it is only not known.
            return None
