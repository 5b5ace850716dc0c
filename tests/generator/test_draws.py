from __future__ import annotations

from collections import Counter

from dualprocess.v1 import generator_pb2 as pb
from services.generator import draws


def optimizer(**changes: int) -> pb.OptimizerSpec:
    values = {
        "seed": 100,
        "steps": 50,
        "batch": 4,
        "noise_seeds": 50,
        "timestep": pb.TIMESTEP_RANDOM,
    }
    return pb.OptimizerSpec(**(values | changes))  # type: ignore[arg-type]


def test_every_step_has_noise_of_its_own_that_no_evaluation_uses() -> None:
    seeds = [seed for step in range(50) for seed in draws.noise_seeds(optimizer(), step, 0)]
    assert len(set(seeds)) == 200
    assert min(seeds) >= 2**62
    assert draws.noise_seeds(optimizer(seed=101), 0, 0) != seeds[:4]
    assert draws.noise_seeds(optimizer(), 0, 1) != seeds[:4]


def test_noise_repeats_after_noise_seeds_steps() -> None:
    drawn = [draws.noise_seeds(optimizer(noise_seeds=3), step, 0) for step in range(6)]
    assert drawn[:3] == drawn[3:]
    assert len({tuple(seeds) for seeds in drawn}) == 3


def test_timesteps_are_uniform_or_the_first_or_the_last() -> None:
    counts = Counter(draws.timestep_index(optimizer(), step, 0, 4) for step in range(2000))
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 400
    assert draws.timestep_index(optimizer(timestep=pb.TIMESTEP_LAST), 7, 0, 4) == 3
    assert draws.timestep_index(optimizer(timestep=pb.TIMESTEP_FIRST), 7, 0, 4) == 0


def test_each_round_takes_every_prompt_once_in_its_own_order() -> None:
    rounds = [
        [draws.prompt_index(optimizer(), 5 * round_ + place, 5) for place in range(5)]
        for round_ in range(6)
    ]
    assert all(sorted(order) == list(range(5)) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_what_a_seed_draws_never_changes() -> None:
    """A job that another version continues, or that is submitted again, draws the same."""
    drawn = optimizer(batch=2)
    assert [draws.noise_seeds(drawn, step, call) for step, call in ((0, 0), (7, 1), (57, 1))] == [
        [8462359129457205990, 7362805883831748865],
        [6250012938602166050, 6048900622012620807],
        [6250012938602166050, 6048900622012620807],
    ]
    steps = range(3)
    assert [
        [draws.timestep_index(drawn, step, call, 8) for call in range(4)] for step in steps
    ] == [
        [3, 0, 3, 1],
        [4, 5, 1, 0],
        [2, 1, 1, 2],
    ]
    prompts = [draws.prompt_index(drawn, step, 5) for step in range(10)]
    assert prompts == [2, 1, 0, 3, 4, 4, 0, 3, 1, 2]
    assert draws.lora_seed(drawn) == 4599877555192067709
