"""The method in one process and one autograd graph: what the services must equal, and cost little
more than."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from dualprocess.schemas import ResolvedJobSpec
from services.common.presets import load_presets
from services.generator import registry as generators
from services.generator.lora_export import LORA_FILE
from services.generator.training import Training
from services.orchestrator.worker import wire
from services.vlm import registry as vlms
from services.vlm.guide import answer_loss
from services.vlm.servicer import asked_questions


@dataclass(frozen=True)
class Step:
    """Seconds of each phase. ``vlm`` is its forward pass; ``backward`` goes through both models."""

    loss: float
    forward: float
    vlm: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.vlm + self.backward


class OneProcess:
    """Noise to image to loss to LoRA without a wire, a cut or a second process; on the CPU."""

    def __init__(self, spec: ResolvedJobSpec) -> None:
        torch.set_num_threads(1)
        presets, cpu = load_presets(), torch.device("cpu")
        family = generators.load(presets.generator(spec.generator), cpu)
        (teacher,) = spec.vlm
        self._vlm = vlms.load(presets.vlm(teacher.name), cpu)
        message = wire.optimize_spec(spec, {teacher.name: "nobody"})
        self._questions = asked_questions(message.questions)
        self._postfix = spec.question_postfix
        self._training = Training(family, message, "job")
        self._steps = 0

    def step(self) -> Step:
        begin = time.perf_counter()
        images = self._training.forward(self._steps, 0)
        made = time.perf_counter()
        loss = answer_loss(self._vlm, images, self._questions, self._postfix)
        answered = time.perf_counter()
        self._training.backward(loss, torch.ones_like(loss))
        self._training.update()
        self._steps += 1
        end = time.perf_counter()
        return Step(
            loss=loss.item(), forward=made - begin, vlm=answered - made, backward=end - answered
        )

    def lora(self) -> bytes:
        """The LoRA as it is now, as a file."""
        return self._training.export()[LORA_FILE]
