"""The saved figures of ``make bench`` keep to the bounds that ``benchmarks/README.md`` states, and
exact counts are those of today's code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from benchmarks import launches, startup
from benchmarks.__main__ import NAMES, RESULTS
from tests.generator import rows as generator_rows
from tests.vlm import rows as vlm_rows

Result = Mapping[str, Any]


def step(saved: Result) -> dict[str, bool]:
    return {
        name: of["services_to_one_process"] <= 1.15 and of["wire_share"] <= 0.05
        for name, of in saved["guard"].items()
    }


def footprint(saved: Result) -> dict[str, bool]:
    return {name: 0.9 <= ratio <= 1.1 for name, ratio in saved["computed_to_measured"].items()}


def questions(saved: Result) -> dict[str, bool]:
    return {name: of["flops_to_one"] <= 1.4 for name, of in saved["vlms"].items()}


def wire(saved: Result) -> dict[str, bool]:
    within = {
        side: of["to_bare_call"] <= 2.5 and of["to_glibc_defaults"] <= 0.9
        for side, of in saved["sides"].items()
    }
    return within | {"finite": saved["finite_to_torch"] <= 0.2}


def overlap(saved: Result) -> dict[str, bool]:
    return {name: of["speed_up"] >= 0.85 * of["at_best"] for name, of in saved["devices"].items()}


def batching(saved: Result) -> dict[str, bool]:
    return {name: ratio <= 0.35 for name, ratio in saved["to_alone"].items()}


def start(saved: Result) -> dict[str, bool]:
    return {"ready": saved["to_generator"] <= 1.8}


#: Whether each figure of a result is within its bound.
BOUNDS: dict[str, Callable[[Result], dict[str, bool]]] = {
    "footprint": footprint,
    "step": step,
    "questions": questions,
    "wire": wire,
    "overlap": overlap,
    "batching": batching,
    "startup": start,
}


def saved(name: str) -> Result:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not saved yet: make bench")
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize("name", BOUNDS)
def test_a_saved_figure_is_within_its_bound(name: str) -> None:
    within = BOUNDS[name](saved(name))
    assert within
    assert [figure for figure, is_within in within.items() if not is_within] == []


def test_every_bench_can_be_run_by_its_name() -> None:
    assert set(BOUNDS) <= set(NAMES)


def test_a_generators_launches_and_waits_are_as_saved() -> None:
    (row,) = (row for row in generator_rows.ROWS if row.preset == "flux-schnell")
    assert launches.generator(row) == saved("launches")["generators"]["flux-schnell"]


def test_a_vlms_launches_and_waits_are_as_saved() -> None:
    (row,) = (row for row in vlm_rows.ROWS if row.preset == "idefics2")
    assert launches.vlm(row) == saved("launches")["vlms"]["idefics2"]


def test_the_worker_imports_about_what_it_imported() -> None:
    # Versions of packages differ a little.
    assert (
        startup.modules(startup.PROCESSES["worker"]) <= 1.1 * saved("startup")["modules"]["worker"]
    )
