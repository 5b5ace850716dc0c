"""Every random choice of a job, each a pure function of its seed and its place.

Nothing is drawn from a shared stream, so jobs can't disturb each other, and a job that goes on
from step n draws what it would have drawn without the interruption.
"""

from __future__ import annotations

import numpy as np

from dualprocess.v1 import generator_pb2 as pb

_NOISE, _TIMESTEP, _PROMPT, _LORA = range(4)


def noise_seeds(optimizer: pb.OptimizerSpec, step: int, micro_step: int) -> list[int]:
    """Seeds of the batch's noise. They repeat after ``optimizer.noise_seeds`` steps.

    All of them are above 2**62, so no evaluation seed (below 2**32) is ever trained on.
    """
    place = (_NOISE, step % optimizer.noise_seeds, micro_step)
    draw = _rng(optimizer.seed, place).integers(2**62, size=optimizer.batch)
    return [2**62 + int(seed) for seed in draw]


def timestep_index(optimizer: pb.OptimizerSpec, step: int, micro_step: int, length: int) -> int:
    """Index of the sampler at which the step trains: uniform, the first or the last one."""
    if optimizer.timestep == pb.TIMESTEP_FIRST:
        return 0
    if optimizer.timestep == pb.TIMESTEP_LAST:
        return length - 1
    return int(_rng(optimizer.seed, (_TIMESTEP, step, micro_step)).integers(length))


def prompt_index(optimizer: pb.OptimizerSpec, step: int, count: int) -> int:
    """Index of the prompt that the step trains on. Each round uses every prompt once, in a new
    order."""
    round_, place = divmod(step, count)
    return int(_rng(optimizer.seed, (_PROMPT, round_)).permutation(count)[place])


def lora_seed(optimizer: pb.OptimizerSpec) -> int:
    """Seed of the LoRA's initial weights."""
    return int(_rng(optimizer.seed, (_LORA,)).integers(2**62))


def _rng(seed: int, place: tuple[int, ...]) -> np.random.Generator:
    return np.random.default_rng([seed, *place])
