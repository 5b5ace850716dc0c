"""The method in one process and one autograd graph. The services must give the same results, and
may cost only a little more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dualprocess.schemas import ResolvedJobSpec
from services.common.presets import load_presets
from services.generator import registry as generators
from services.generator.families.base import GeneratorFamily
from services.generator.lora.export import LORA_FILE
from services.generator.sample import Drawn
from services.generator.training import Training
from services.orchestrator.worker import wire
from services.vlm import registry as vlms
from services.vlm.families.base import VlmFamily
from services.vlm.guide import Guard, guarded_loss
from services.vlm.servicer import asked_questions


@dataclass(frozen=True)
class Step:
    """``loss`` is without the guard, ``probabilities`` are those of each question's right answer.
    The other fields are seconds of each phase: ``vlm`` is its forward pass and the search for the
    worst case; ``backward`` goes through both models."""

    loss: float
    probabilities: list[float]
    forward: float
    vlm: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.vlm + self.backward


@dataclass(frozen=True)
class Pair:
    """Both models, on the CPU."""

    generator: GeneratorFamily
    vlm: VlmFamily

    @classmethod
    def load(cls, generator: str, vlm: str) -> Pair:
        """Loads both models by the names of their presets."""
        presets, cpu = load_presets(), torch.device("cpu")
        return cls(
            generators.load(presets.generator(generator), cpu), vlms.load(presets.vlm(vlm), cpu)
        )


class OneProcess:
    """Noise, image, loss and LoRA in one graph and one process, without gRPC, on one thread."""

    def __init__(self, spec: ResolvedJobSpec, pair: Pair | None = None) -> None:
        torch.set_num_threads(1)
        (teacher,) = spec.vlm
        self._pair = pair or Pair.load(spec.generator, teacher.name)
        message = wire.optimize_spec(spec, {teacher.name: "nobody"})
        self._questions = asked_questions(message.questions)
        self._postfix = spec.question_postfix
        self._guard = Guard(message.guard.margin or None, message.guard.worst_case)
        self._training = Training(self._pair.generator, message, "job")
        self.steps = spec.optimizer.steps
        self._done = 0

    def step(self) -> Step:
        begin = time.perf_counter()
        made = self._training.forward(self._done, 0)
        anchor = self._training.compare(made)
        drawn = time.perf_counter()
        taught, answers = guarded_loss(
            self._pair.vlm, made.images, self._questions, self._postfix, self._guard
        )
        loss = self._mean([[answer.loss for answer in row] for row in answers])
        right = self._mean([[a.geometric_mean_probability for a in row] for row in answers])
        answered = time.perf_counter()
        self._training.backward(taught, torch.ones_like(taught), anchor, right)
        self._training.update()
        self._done += 1
        end = time.perf_counter()
        return Step(
            sum(loss) / len(loss),
            [
                sum(answer.geometric_mean_probability for answer in column) / len(column)
                for column in zip(*answers, strict=True)
            ],
            forward=drawn - begin,
            vlm=answered - drawn,
            backward=end - answered,
        )

    def _mean(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """For each image, the mean over its questions by their weights."""
        weights = [asked.weight for asked in self._questions]
        return [
            sum(weight * value for weight, value in zip(weights, row, strict=True)) / sum(weights)
            for row in rows
        ]

    def draw(self, seed: int, *, with_lora: bool) -> Drawn:
        """An image of the prompt, without the LoRA or with it as it is now."""
        return self._training.draw(seed, with_lora=with_lora)

    def lora(self) -> bytes:
        """The LoRA as it is now, as a file."""
        return self._training.export()[LORA_FILE]

    def close(self) -> None:
        """Removes the LoRA from the generator."""
        self._training.close()
