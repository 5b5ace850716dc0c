"""Measures when a job may end, and at which timestep it should train, by pixels.

`python -m models.training.early stop red-circle --seeds 1 2` trains each LoRA to its last step, and
tells what it is like at the step where `stop_at_score` would have ended it.
`python -m models.training.early timestep red-circle` trains on a sampler of several steps, at its
first timestep, its last, and random ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.training.measure import measure
from models.training.one_process import OneProcess, Pair
from models.training.optimize import GENERATOR, VLM, job_spec
from models.training.tasks import TASKS, Task
from services.common.presets import load_presets
from services.generator.collateral import collateral
from services.generator.sample import Drawn
from services.orchestrator.api.resolve import resolve_job

WANTED = (0.9, 0.95, 0.97)
IN_A_ROW = 3  # steps, as services.orchestrator.worker.enough
HELD_OUT = range(32)


def stop(pair: Pair, task: Task, seed: int) -> None:
    """A row for each score in WANTED, and one for the last step."""
    job = _job(pair, task, seed)
    base = _drawn(job, with_lora=False)
    lowest: list[float] = []
    waiting = list(WANTED)
    while len(lowest) < job.steps:
        lowest.append(min(job.step().probabilities))
        while waiting and len(lowest) >= IN_A_ROW and min(lowest[-IN_A_ROW:]) >= waiting[0]:
            _row(job, task, f"{seed} {waiting.pop(0)}", len(lowest), base)
    for wanted in waiting:
        print(f"{task.name} {seed} {wanted} never")
    _row(job, task, f"{seed} end", len(lowest), base)
    job.close()


def timestep(pair: Pair, task: Task, seed: int, sampler: int, steps: int) -> None:
    """A row for each way to choose it."""
    for way in ("first", "random", "last"):
        changes = {"image": {"num_inference_steps": sampler}}
        job = _job(pair, task, seed, **changes, optimizer={"steps": steps, "timestep": way})
        base = _drawn(job, with_lora=False)
        if way == "first":
            print(f"{task.name} base", _shown(task, base, base))
        for done in range(steps):
            job.step()
            if done + 1 in (steps // 3, steps):
                _row(job, task, f"{seed} {way}", done + 1, base)
        job.close()


def _job(pair: Pair, task: Task, seed: int, **changes: Any) -> OneProcess:
    spec = job_spec(task, seed)
    for name, values in changes.items():
        part = getattr(spec, name).model_copy(update=values)
        spec = spec.model_copy(update={name: part})
    return OneProcess(resolve_job(spec, load_presets()), pair)


def _drawn(job: OneProcess, *, with_lora: bool) -> list[Drawn]:
    return [job.draw(seed, with_lora=with_lora) for seed in HELD_OUT]


def _row(job: OneProcess, task: Task, what: str, steps: int, base: Sequence[Drawn]) -> None:
    print(
        f"{task.name} {what} {steps}", _shown(task, base, _drawn(job, with_lora=True)), flush=True
    )


def _shown(task: Task, base: Sequence[Drawn], lora: Sequence[Drawn]) -> str:
    changed = collateral([one.latents for one in lora], [one.latents for one in base])
    success = np.mean([task.success(one.pixels) for one in lora])
    whole = np.mean([measure(one.pixels) is not None for one in lora])
    return (
        f"success {success:.0%} whole {whole:.0%} drift {changed.drift:.3f} "
        f"diversity {changed.diversity:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["stop", "timestep"])
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--sampler", type=int, default=4, help="its steps, for timestep")
    parser.add_argument("--steps", type=int, default=90, help="of training, for timestep")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair = Pair.load(GENERATOR, VLM)
    for name in options.tasks:
        for seed in options.seeds:
            if options.what == "stop":
                stop(pair, TASKS[name], seed)
            else:
                timestep(pair, TASKS[name], seed, options.sampler, options.steps)


if __name__ == "__main__":
    main()
