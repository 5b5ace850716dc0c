"""Which jobs of a sweep end early, and which of them no other beats."""

from __future__ import annotations

import pytest

from dualprocess.cli.halving import Race


def race(*rungs: dict[str, float], size: int = 4) -> Race:
    made = Race(size)
    for scores, given in zip(made.scores, rungs, strict=False):
        scores.update(given)
    return made


@pytest.mark.parametrize(
    ("size", "steps", "kept"), [(2, [50], [1]), (4, [25, 50], [2, 1]), (5, [25, 50], [3, 2])]
)
def test_rungs_halve_the_steps_and_the_jobs(size: int, steps: list[int], kept: list[int]) -> None:
    made = Race(size)
    assert [made.step(rung, 100) for rung in range(len(made.scores))] == steps
    assert [made.kept(rung) for rung in range(len(made.scores))] == kept
    assert Race(1).scores == []


def test_a_job_is_ended_once_enough_others_are_better() -> None:
    # Two of four go on after the first rung. One that is better is not enough to know.
    assert race({"a": 0.5, "b": 0.9}).beaten("a") is None
    assert race({"a": 0.5, "b": 0.9, "c": 0.5}).beaten("a") is None
    assert race({"a": 0.5, "b": 0.9, "c": 0.8}).beaten("a") == (0, 2)
    assert race({"a": 0.5, "b": 0.9, "c": 0.8}).beaten("c") is None
    # One goes on after the second.
    scores = {"b": 0.9, "c": 0.8}
    assert race(scores, {"b": 0.7, "c": 0.95}).beaten("b") == (1, 1)
    assert race(scores, {"b": 0.7, "c": 0.95}).beaten("c") is None
    assert race(scores, {"c": 0.95}).beaten("b") is None
