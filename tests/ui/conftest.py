from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.stack import Stack, running
from tests.orchestrator.conftest import redis_server
from tests.ui.browsing import CHROMIUM, REQUIRED, WHY_NOT, Visit, chromium

__all__ = ["redis_server"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One a module: playwright's loop must not be there for other tests' own."""
    if CHROMIUM is None and not REQUIRED:
        pytest.skip(WHY_NOT)
    assert CHROMIUM, WHY_NOT
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The tiny pair with the page; none where there is no browser."""
    with running(tmp_path_factory.mktemp("ui"), ui=True) as stack:
        yield stack


@pytest.fixture
def visit(browser: Browser, stack: Stack) -> Iterator[Visit]:
    """A first visitor, whose pages asked nobody else and broke nowhere."""
    visit = Visit(browser, stack.url)
    yield visit
    visit.context.close()
    assert visit.outside == []
    assert visit.errors == []
