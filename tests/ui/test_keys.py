"""The page of a service with keys shows a visitor their own jobs and nobody else's."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser, expect

from dualprocess import Client
from services.orchestrator.ui.paths import KEY_COOKIE
from tests.e2e.conftest import red_circle
from tests.ui.browsing import Visit, give_key, part


def test_a_key_opens_the_page_on_its_owners_jobs_only(
    browser: Browser, url: str, keys: dict[str, str]
) -> None:
    with Client(url, keys["anna"]) as client:
        # What another file's tests left in the queue.
        for earlier in client.jobs():
            client.cancel(earlier.id)
        job = client.submit(red_circle(name="of anna"))
    anna, ben = Visit(browser, url), Visit(browser, url)
    page = anna.open()
    give_key(page, "dp_nobody_has_this")
    expect(page.locator("#dp-key-fault")).to_contain_text("unknown")
    give_key(page, keys["anna"])
    expect(page.locator("#teach-generator input")).not_to_have_value("")
    part(page, "Gallery")
    card = page.locator(f'.dp-card[data-job="{job.id}"]')
    expect(card).to_contain_text("of anna")
    card.click()
    expect(page.locator("#dp-panel-head")).to_contain_text("next in line")
    expect(page.locator("#dp-panel-head")).to_contain_text("Waits for a worker that serves tiny")
    # Their address is of no use to others.
    other = ben.open(f"/ui/?job={job.id}")
    give_key(other, keys["ben"])
    expect(other.locator(".dp-faults").first).to_contain_text("There is no job")
    part(other, "Gallery")
    expect(other.locator("#gallery")).to_contain_text("Nothing here yet")
    # The browser keeps the key for the page alone, and forgets it.
    (kept,) = anna.context.cookies()
    assert (kept.get("name"), kept.get("path"), kept.get("sameSite")) == (
        KEY_COOKIE,
        "/ui",
        "Strict",
    )
    page.get_by_role("button", name="Forget my key").click()
    expect(page.get_by_label("API key", exact=True).last).to_be_visible()
    assert anna.context.cookies() == []
    for visit in (anna, ben):
        visit.context.close()
        assert visit.outside == []


def test_without_a_key_only_the_empty_page_is_open(url: str, keys: dict[str, str]) -> None:
    with httpx.Client(base_url=url) as http:
        page = http.get("/ui/")
        assert page.status_code == 200
        assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
        assert http.get("/ui/theme.css").status_code == 200
        work = {"data": [], "fn_index": 0, "session_hash": "a"}
        assert http.post("/ui/gradio_api/queue/join", json=work).status_code == 401
        assert http.get("/ui/gradio_api/queue/data?session_hash=a").status_code == 401
        # The cookie is worth nothing beyond the page.
        http.cookies.set(KEY_COOKIE, keys["anna"])
        assert http.get("/v1/jobs").status_code == 401
        assert http.get("/ui/gradio_api/heartbeat/a%20b").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/ui/gradio_api/upload",
        "/ui/gradio_api/file=/etc/passwd",
        "/ui/gradio_api/proxy=http://127.0.0.1:1/",
        "/ui/gradio_api/info",
        "/ui/monitoring/summary",
        "/ui/gradio_api/call/opened",
    ],
)
def test_what_the_page_does_not_need_of_gradio_is_not_there(
    url: str, keys: dict[str, str], path: str
) -> None:
    authorized = {"Authorization": f"Bearer {keys['anna']}"}
    for method in ("GET", "POST"):
        assert httpx.request(method, url + path, headers=authorized).status_code == 404
