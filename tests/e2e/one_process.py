"""The method in one process and one autograd graph: what the services must equal."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dualprocess.schemas import ResolvedJobSpec
from services.common.presets import load_presets
from services.generator import registry as generators
from services.generator.training import Training
from services.orchestrator.worker import wire
from services.vlm import registry as vlms
from services.vlm.guide import answer_loss
from services.vlm.servicer import asked_questions


@dataclass(frozen=True)
class Result:
    losses: list[float]
    lora: bytes


def optimize(spec: ResolvedJobSpec) -> Result:
    """Noise to image to loss to LoRA without a wire, a cut or a second process."""
    torch.set_num_threads(1)
    presets, cpu = load_presets(), torch.device("cpu")
    family = generators.load(presets.generator(spec.generator), cpu)
    vlm = vlms.load(presets.vlm(spec.vlm), cpu)
    message = wire.optimize_spec(spec, "nobody")
    questions = asked_questions(message.questions)
    training = Training(family, message, "job")
    losses = []
    for step in range(spec.optimizer.steps):
        images = training.forward(step, 0)
        loss = answer_loss(vlm, images, questions, spec.question_postfix)
        training.backward(loss, torch.ones_like(loss))
        training.update()
        losses.append(loss.item())
    return Result(losses, training.export())
