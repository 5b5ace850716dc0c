"""The pictures of the page in ``docs/images``: ``python -m tests.ui.screenshots``.

Teaches two LoRAs on the tiny pair, as a visitor would, and photographs the page on the way. What
the first one draws is the page's own example.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from dualprocess import Client
from tests.e2e.stack import running
from tests.ui.browsing import Visit, chromium, part

_ROOT = Path(__file__).parents[2]
IMAGES = _ROOT / "docs" / "images"
EXAMPLE = _ROOT / "services" / "orchestrator" / "ui" / "assets" / "example.png"
_EXAMPLE_SEEDS = 5
#: Minutes, on a busy machine.
_PATIENCE_MS = 1_200_000


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        running(Path(folder), ui=True) as stack,
    ):
        _photograph(browser, stack.url)
        _keep_example(stack.url)


def _photograph(browser: Browser, url: str) -> None:
    visit = Visit(browser, url, width=1180, height=900)
    visit.context.set_default_timeout(_PATIENCE_MS)
    page = visit.tab()
    page.click("#teach-start")
    expect(page.locator(".dp-strip li")).to_have_count(4, timeout=_PATIENCE_MS)
    page.evaluate("scrollTo(0, 0)")
    _keep(page.screenshot(), "page-teach.png")
    _ended(page)
    red_circle = page.url
    page.locator("[data-template=tiny-horizon]").click()
    page.wait_for_selector(".dp-drawn img")
    page.click("#teach-start")
    expect(page.locator("#dp-panel-head")).to_contain_text("horizon line")
    _ended(page)
    page.goto(red_circle)
    page.get_by_role("button", name="Make images with it").click()
    page.fill("#use-strengths input, #use-strengths textarea", "0, 0.5, 1")
    page.click("#use-make")
    expect(page.locator("#use-grid img")).to_have_count(12, timeout=_PATIENCE_MS)
    _keep(page.screenshot(), "page-use.png")
    part(page, "Compare")
    expect(page.locator(".dp-sides section")).to_have_count(2, timeout=_PATIENCE_MS)
    _keep(page.screenshot(), "page-compare.png")
    address = page.url.removeprefix(url)
    visit.context.close()
    phone = Visit(browser, url, width=390, height=844, dense=2)
    page = phone.tab(address)
    page.wait_for_selector("#dp-panel-pictures .dp-samples img")
    page.locator("#dp-panel-head").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('.dp-panel').scrollIntoView()")
    left = page.screenshot()
    part(page, "Gallery")
    expect(page.locator(".dp-card")).to_have_count(2, timeout=_PATIENCE_MS)
    _keep(_beside(left, page.screenshot()), "page-phone.png")
    phone.context.close()


def _ended(page: Page) -> None:
    expect(page.locator("#dp-panel-head")).to_contain_text("succeeded", timeout=_PATIENCE_MS)
    page.wait_for_selector("#dp-panel-outcome a")


def _beside(*pictures: bytes) -> bytes:
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    width, height = images[0].size
    sheet = Image.new("RGB", (len(images) * width + 40, height), "#e5dfd7")
    for index, image in enumerate(images):
        sheet.paste(image, (index * (width + 40), 0))
    buffer = io.BytesIO()
    sheet.resize((sheet.width // 2, sheet.height // 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _keep_example(url: str) -> None:
    """Base above, LoRA below: of the first job."""
    with Client(url) as client:
        *_, first = client.jobs()
        rows = [
            [client.read_artifact(first.id, f"{side}-{seed}.png") for seed in range(_EXAMPLE_SEEDS)]
            for side in ("base", "lora")
        ]
    pictures = [[Image.open(io.BytesIO(data)).convert("RGB") for data in row] for row in rows]
    width, height = pictures[0][0].size
    sheet = Image.new("RGB", (_EXAMPLE_SEEDS * width, 2 * height))
    for down, row in enumerate(pictures):
        for across, picture in enumerate(row):
            sheet.paste(picture, (across * width, down * height))
    sheet.quantize(256).save(EXAMPLE, optimize=True)


def _keep(picture: bytes, name: str) -> None:
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256)
    image.save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
