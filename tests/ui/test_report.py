"""The report of a batch in a browser: columns that sort, and what else each job changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from dualprocess import Job
from dualprocess.cli import batch_report, outcomes
from tests.client.test_outcomes import spec
from tests.client.test_telling import WARNING, learned, score


def judged(base: float, lora: float, gap: float | None) -> dict[str, Any]:
    return {"vlm": "idefics2", "base": score(base), "lora": score(lora), "gap": gap}


#: Drift, diversity, judge and gap of each job; the last has not ended.
JOBS: dict[str, dict[str, Any] | None] = {
    "low": {"drift": 0.05, "diversity": 1.2, "judge": judged(0.1, 0.9, -0.05)},
    "high": {"drift": 10.5, "diversity": 0.4, "judge": judged(0.1, 0.2, 0.7)},
    "middle": {"drift": 0.5, "judge": judged(0.1, 0.8, None)},
    "queued": None,
}


def report(folder: Path, *, judge: str | None = "idefics2") -> Path:
    """The file, as the command writes it."""
    specs = [spec(name).model_copy(update={"judge": judge}) for name in JOBS]
    found = outcomes.outcomes(specs, folder)
    for outcome, scores in zip(found, JOBS.values(), strict=True):
        if scores is not None:
            both = {"base": score(0.1), "lora": score(0.9)}
            outcome.record(Job.model_validate(learned(scores=scores | both)))
    file = folder / outcomes.REPORT
    file.write_text(batch_report.html(found, folder))
    return file


def column(page: Page, head: str) -> Sequence[str]:
    place = page.locator("thead th").all_inner_texts().index(head)
    return page.locator(f"tbody td:nth-child({place + 1})").all_inner_texts()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Page:
    page = browser.new_page()
    page.goto(report(tmp_path).as_uri())
    return page


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        ("drift", ["–", "0.050", "0.500", "10.500"]),
        ("diversity", ["–", "–", "0.400", "1.200"]),
        ("judge", ["–", "0.200", "0.800", "0.900"]),
        ("gap", ["–", "–", "-0.050", "0.700"]),
    ],
)
def test_numbers_sort_and_what_is_missing_is_below(page: Page, head: str, shown: list[str]) -> None:
    button = page.locator(f"th button:text-is('{head}')")
    button.click()
    assert column(page, head) == shown
    button.click()
    assert column(page, head) == shown[::-1]


def test_warnings_are_there_to_read(page: Page) -> None:
    assert page.get_by_text(f"warning: {WARNING}").count() == 3


def test_without_a_judge_there_is_no_column_for_one(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(report(tmp_path, judge=None).as_uri())
    heads = page.locator("thead th").all_inner_texts()
    assert {"drift", "diversity"} < set(heads)
    assert not {"judge", "gap"} & set(heads)
    assert "pleased" not in page.locator("body").inner_text()
