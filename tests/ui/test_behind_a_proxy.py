"""The page under a prefix, through a real nginx: it works there as it does without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from dualprocess import Client
from tests.e2e.conftest import red_circle
from tests.nginx import needs_nginx, nginx
from tests.orchestrator.test_keys import created, serving
from tests.redis_server import RedisServer
from tests.ui.browsing import Visit, give_key, part

pytestmark = needs_nginx


@pytest.fixture
def url(
    browser: Browser, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefix")
    with (
        serving(redis_server, folder, "--auth", "--ui", "--root-path=/dp") as upstream,
        nginx(folder, upstream, strips=True) as url,
    ):
        yield url


def test_the_page_works_under_a_prefix(
    browser: Browser, url: str, redis_server: RedisServer
) -> None:
    key = created(redis_server, "--scope", "submit", "--scope", "read")
    with Client(url, key) as client:
        client.submit(red_circle(name="behind nginx"))
    visit = Visit(browser, url)
    # Without the slash: the redirect stays under the prefix.
    page = visit.open("/ui")
    assert page.url == f"{url}/ui/"
    give_key(page, key)
    expect(page.locator("#teach-generator input")).not_to_have_value("")
    part(page, "Gallery")
    expect(page.locator(".dp-card").first).to_contain_text("behind nginx")
    assert [cookie.get("path") for cookie in visit.context.cookies()] == ["/dp/ui"]
    visit.context.close()
    assert visit.outside == []
    assert visit.errors == []
