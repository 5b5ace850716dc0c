"""The method in one process, to measure the pair: a VLM's answers teach a LoRA.

`python -m models.training.optimize red-circle --seed 1`
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dualprocess.schemas import GuardOptions, JobSpec, OptimizerOptions, Question, VisualPrompt
from models.training.one_process import OneProcess, Pair
from models.training.tasks import TASKS, Task
from services.common.presets import load_presets
from services.orchestrator.api.resolve import resolve_job
from services.orchestrator.worker.report import samples_png

GENERATOR, VLM = "tiny-flux", "tiny-idefics2"
HELD_OUT = range(64)
OFF = GuardOptions(anchor=0, margin=1, worst_case=0)


@dataclass(frozen=True)
class Outcome:
    """The sampled images (N, 64, 64, 3) before and after, and the loss of each step."""

    base: NDArray[np.uint8]
    learnt: NDArray[np.uint8]
    losses: list[float]


def job_spec(task: Task, seed: int, guard: GuardOptions | None = None) -> JobSpec:
    """The job that a user would submit, with the preset's settings, and with ``guard`` or else the
    task's own."""
    drawing = task.visual_prompt
    prompt = None if drawing is None else VisualPrompt(image=_png(drawing))
    return JobSpec(
        prompt=task.prompt,
        questions=[
            Question(question=asked, answer=answer, visual_prompt=prompt)
            for asked, answer in task.questions
        ],
        generator=GENERATOR,
        vlm=VLM,
        optimizer=OptimizerOptions(seed=seed),
        guard=task.guard if guard is None else guard,
    )


def optimize(
    pair: Pair,
    task: Task,
    seed: int,
    sampled: Sequence[int] = HELD_OUT,
    guard: GuardOptions | None = None,
) -> Outcome:
    """Trains a LoRA on `task` as the services do, samples the given seeds with it, and removes it.

    Fields that the guard leaves out are the preset's; without a guard it is the task's own.
    """
    job = OneProcess(resolve_job(job_spec(task, seed, guard), load_presets()), pair)
    try:
        base = _sampled(job, sampled, with_lora=False)
        losses = [job.step().loss for _ in range(job.steps)]
        return Outcome(base, _sampled(job, sampled, with_lora=True), losses)
    finally:
        job.close()


def _sampled(job: OneProcess, seeds: Sequence[int], *, with_lora: bool) -> NDArray[np.uint8]:
    return np.stack([job.draw(seed, with_lora=with_lora).pixels for seed in seeds])


def _png(drawing: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--off", action="store_true", help="without the guard")
    parser.add_argument("--save", help="write eight held-out seeds to this PNG")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[options.task]
    begin = time.monotonic()
    guard = OFF if options.off else None
    outcome = optimize(Pair.load(GENERATOR, VLM), task, options.seed, guard=guard)
    seconds = time.monotonic() - begin
    for name, images in (("base", outcome.base), ("learnt", outcome.learnt)):
        success = np.mean([task.success(image) for image in images])
        print(f"{task.name} {name:6} success {success:.3f}")
    print(f"loss {outcome.losses[0]:.3f} → {outcome.losses[-1]:.4f} in {seconds:.0f} s")
    if options.save:
        _save_sheet(options.save, outcome)


def _save_sheet(path: str, outcome: Outcome) -> None:
    base, learnt = (
        [_png(image) for image in images[:8]] for images in (outcome.base, outcome.learnt)
    )
    Path(path).write_bytes(samples_png(HELD_OUT[:8], base, learnt))


if __name__ == "__main__":
    main()
