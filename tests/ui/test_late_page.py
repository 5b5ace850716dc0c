"""The page is built when somebody wants it; until then the process does without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

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


async def never() -> bool:
    return False


async def test_visitors_wait_for_one_building_and_all_see_the_page() -> None:
    build, calls = counted(holder)
    after: list[int] = []
    page = LatePage(build, lambda: after.append(1))
    async with page.open(never), visitor(page) as http:
        assert not calls
        answers = await asyncio.gather(*(http.get("/ui/") for _ in range(5)))
        assert {answer.json() for answer in answers} == {"the page"}
    assert calls == after == [1]


async def test_a_page_that_nobody_opened_is_never_built() -> None:
    build, calls = counted(holder)
    async with LatePage(build).open(never):
        pass
    assert not calls


async def test_the_page_is_built_once_the_start_is_over() -> None:
    build, calls = counted(holder)
    looks = count()

    async def at_the_second_look() -> bool:
        return next(looks) == 1

    built = asyncio.Event()
    page = LatePage(build, built.set)
    async with page.open(at_the_second_look):
        await asyncio.sleep(0)
        assert not calls
        await built.wait()
    assert calls == [1]


async def test_the_page_is_built_after_a_while_even_if_the_start_is_not_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.orchestrator.ui.late_page._LATEST_SECONDS", 0.0)
    built = asyncio.Event()
    async with LatePage(holder, built.set).open(never):
        await built.wait()


async def test_a_page_that_fails_is_told_in_the_log_and_to_each_visitor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails() -> FastAPI:
        raise RuntimeError("no page today")

    page = LatePage(fails)
    async with page.open(never), visitor(page) as http:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no page today"):
                await http.get("/ui/")
    assert "the page can't be served" in caplog.text
