"""A real Chromium, with pages that may send requests only to the service."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    expect,
    sync_playwright,
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WHY_NOT = "needs chromium on the PATH: apt-get install chromium"
#: If it is set, a missing browser is a failure and not a reason to skip.
REQUIRED = "DUALPROCESS_TESTS_NEED_BROWSER" in os.environ

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Longer than any step of a test, on a busy machine.
_PATIENCE_MS = 45_000
#: Gradio fills a field within this time.
_SETTLES_MS = 500
expect.set_options(timeout=_PATIENCE_MS)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


class Visit:
    """A visitor's browser: tabs that share what is kept in it."""

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1280, height: int = 900, dense: int = 1
    ) -> None:
        self.url = url
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height},
            device_scale_factor=dense,
            accept_downloads=True,
        )
        self.context.set_default_timeout(_PATIENCE_MS)

    def tab(self, path: str = "/ui/") -> Page:
        """A new tab, with the page loaded and its fields filled in."""
        page = self.open(path)
        page.wait_for_function("document.querySelector('#teach-prompt textarea')?.value")
        return page

    def open(self, path: str = "/ui/") -> Page:
        page = self.context.new_page()
        page.on("request", lambda request: self._note(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"{self.url}{path}")
        return page

    def _note(self, url: str) -> None:
        if urlsplit(url).scheme in ("http", "https", "ws", "wss") and not url.startswith(self.url):
            self.outside.append(url)


def part(page: Page, name: str) -> None:
    """Turns to one of the page's tabs."""
    page.get_by_role("tab", name=name).click()


def type_into(field: Locator, text: str) -> None:
    """Fills a field that was just shown or filled. Gradio may write over what is typed a moment
    before it is done with that, so this types until it stays."""
    while True:
        field.fill(text)
        field.page.wait_for_timeout(_SETTLES_MS)
        if field.input_value() == text:
            return


def give_key(page: Page, key: str) -> None:
    """Answers the page that asks for an API key."""
    page.fill("#dp-key-input", key)
    page.get_by_role("button", name="Use this key").click()
