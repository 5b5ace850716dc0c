"""The method in one process, for measuring the pair: a VLM's answers teach a LoRA.

`python -m models.training.optimize red-circle --seed 1`
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from models.training.pair import Generator, Vlm, clamp_through, noise_of
from models.training.tasks import TASKS, Task

STEPS = 200
BATCH = 4
LEARNING_RATE = 5e-4
RANK, ALPHA, WEIGHT = 16, 8, 5
TARGETS = [
    "attn.to_k",
    "attn.to_q",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_k_proj",
    "attn.add_q_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
    "ff.net.0.proj",
    "ff.net.2",
    "ff_context.net.0.proj",
    "ff_context.net.2",
]
HELD_OUT = range(64)


@dataclass(frozen=True)
class Outcome:
    """The sampled images (N, 64, 64, 3) before and after, and the loss of each step."""

    base: NDArray[np.uint8]
    learnt: NDArray[np.uint8]
    losses: list[float]


def optimize(
    generator: Generator, vlm: Vlm, task: Task, seed: int, sampled: Sequence[int] = HELD_OUT
) -> Outcome:
    """Trains a LoRA on `task`, samples the given seeds with it, takes it off again."""
    base = generator.sample(task.prompt, sampled)
    parameters = _attach(generator.transformer, seed)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0)
    conditioning = generator.encode(task.prompt)
    seeds = np.random.default_rng(seed).integers(2**62, 2**63, (STEPS, BATCH))
    losses = []
    for step in range(STEPS):
        images = clamp_through(generator.decode_step(conditioning, noise_of(seeds[step].tolist())))
        loss = torch.stack(
            [vlm.loss(images, q, a, task.visual_prompt).mean() for q, a in task.questions]
        ).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
    learnt = generator.sample(task.prompt, sampled)
    generator.transformer.delete_adapters("task")
    return Outcome(base, learnt, losses)


def _attach(transformer: Any, seed: int) -> list[nn.Parameter]:
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, init_lora_weights=False)
    transformer.add_adapter(config, "task")
    rng = torch.Generator("cpu").manual_seed(seed)
    parameters: list[nn.Parameter] = []
    for layer in transformer.modules():
        if isinstance(layer, LoraLayer):
            layer.set_scale("task", WEIGHT)
            lora_A, lora_B = layer.lora_A["task"].weight, layer.lora_B["task"].weight
            nn.init.normal_(lora_A, std=1 / RANK, generator=rng)
            nn.init.zeros_(lora_B)
            parameters += [lora_A, lora_B]
    return parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", help="write the held-out images to this PNG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[options.task]
    generator, vlm = Generator(), Vlm()
    begin = time.monotonic()
    outcome = optimize(generator, vlm, task, options.seed)
    seconds = time.monotonic() - begin
    for name, images in (("base", outcome.base), ("learnt", outcome.learnt)):
        probability = np.mean(
            [vlm.probability(images, q, a, task.visual_prompt).mean() for q, a in task.questions]
        )
        success = np.mean([task.success(image) for image in images])
        print(f"{task.name} {name:6} probability {probability:.3f} success {success:.3f}")
    print(f"loss {outcome.losses[0]:.3f} → {outcome.losses[-1]:.4f} in {seconds:.0f} s")
    if options.save:
        _save_sheet(options.save, outcome)


def _save_sheet(path: str, outcome: Outcome) -> None:
    from PIL import Image

    both = np.concatenate([outcome.base[:24], outcome.learnt[:24]])
    rows = both.reshape(4, 12, *both.shape[1:]).transpose(0, 2, 1, 3, 4)
    Image.fromarray(rows.reshape(4 * 64, 12 * 64, 3)).save(path)


if __name__ == "__main__":
    main()
