"""The page is built when somebody wants it; until then the process does without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from services.orchestrator.ui.late_page import LatePage


def holder() -> FastAPI:
    page = FastAPI()
    page.get("/")(lambda: "the page")
    app = FastAPI()
    app.mount("/ui", page)
    return app


def visitor(page: LatePage) -> httpx.AsyncClient:
    app = FastAPI()
    app.mount("/ui", page)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


def counted(build: Callable[[], FastAPI]) -> tuple[Callable[[], FastAPI], list[int]]:
    calls: list[int] = []

    def counting() -> FastAPI:
        calls.append(1)
        return build()

    return counting, calls


async def test_visitors_wait_for_one_building_and_all_see_the_page() -> None:
    build, calls = counted(holder)
    after: list[int] = []
    page = LatePage(build, lambda: after.append(1))
    async with page.open(), visitor(page) as http:
        assert not calls
        answers = await asyncio.gather(*(http.get("/ui/") for _ in range(5)))
        assert {answer.json() for answer in answers} == {"the page"}
    assert calls == after == [1]


async def test_a_page_that_nobody_opened_is_never_built() -> None:
    build, calls = counted(holder)
    async with LatePage(build).open():
        pass
    assert not calls


async def test_a_page_that_fails_is_told_in_the_log_and_to_each_visitor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> FastAPI:
        raise RuntimeError("no page today")

    page = LatePage(fails)
    async with page.open(), visitor(page) as http:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no page today"):
                await http.get("/ui/")
    assert "the page can't be served" in caplog.text
