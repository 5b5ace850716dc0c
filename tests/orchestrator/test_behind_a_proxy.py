"""The API behind a proxy with a prefix: a real nginx, and headers that anybody can send."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from dualprocess import Client, JobSpec
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from tests.nginx import needs_nginx, nginx
from tests.orchestrator.conftest import SPEC
from tests.orchestrator.test_keys import serving
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def upstream(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(redis_server, tmp_path_factory.mktemp("api"), "--root-path=/dp") as url:
        yield url


@pytest.fixture(scope="module", params=["stripped", "kept"])
def url(
    request: pytest.FixtureRequest, upstream: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(folder, upstream, strips=request.param == "stripped") as url:
        yield url


@needs_nginx
def test_documentation_names_the_prefix(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["servers"][0] == {"url": "/dp"}
    for page in ("docs", "redoc"):
        assert "/dp/openapi.json" in httpx.get(f"{url}/{page}").text
    wrong = httpx.put(f"{url}/v1/jobs")
    assert wrong.status_code == 405
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "POST"}


@needs_nginx
def test_locations_and_redirects_lead_back_through_the_proxy(url: str) -> None:
    for path, body in (
        ("/v1/jobs", SPEC),
        ("/v1/batches", {"specs": [SPEC]}),
        ("/v1/images", {"prompt": "a", "generator": "tiny-flux", "wait": 0}),
    ):
        made = httpx.post(f"{url}{path}", json=body)
        assert made.status_code == 202, made.text
        location = made.headers["Location"]
        assert location.startswith("/dp/v1/"), path
        assert httpx.get(httpx.URL(url).join(location)).is_success
    moved = httpx.get(f"{url}/v1/jobs/")
    assert moved.headers["Location"] == "/dp/v1/jobs"


@needs_nginx
def test_the_sdk_takes_an_address_with_a_path(url: str) -> None:
    with Client(f"{url}/") as client:
        job = client.submit(JobSpec.model_validate(SPEC))
        assert client.job(job.id).id == job.id
        events = client.events(job.id)
        # It comes while the job still waits, so the proxy does not buffer it.
        assert next(events).event.type == "status"
        assert client.cancel(job.id).status == "cancelled"
        assert [record.event.type for record in events] == ["status"]


CLAIMS = {
    "X-Forwarded-Host": "studio.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/claimed",
}


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        ("127.0.0.1,::1", "127.0.0.1", True),
        ("127.0.0.1,::1", "::1", True),
        ("127.0.0.1,::1", "10.0.0.7", False),
        ("10.0.0.0/8", "10.0.0.7", True),
        ("10.0.0.0/8", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("*", "2001:db8::7", True),
    ],
)
async def test_who_is_no_trusted_proxy_claims_nothing(
    artifacts: str, trusted: str, peer: str, believed: bool
) -> None:
    app = create_app(
        ApiSettings(artifacts=artifacts, trusted_proxies=trusted, allowed_hosts="studio.example")
    )
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        page = (await http.get("/docs", headers=CLAIMS)).text
        assert f"'{'/claimed' if believed else ''}/openapi.json'" in page
        moved = await http.get("/docs/", headers=CLAIMS, follow_redirects=False)
        assert moved.headers["Location"] == ("/claimed/docs" if believed else "/docs")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(ApiSettings(artifacts=tmp_path_factory.mktemp("app").as_uri()))


@pytest.mark.parametrize(
    "value",
    ["", "//evil.example", "evil.example/path", "/a b", "javascript:", "/../x?y#z", "a\\b"],
)
@pytest.mark.parametrize("header", ["X-Forwarded-Prefix", "X-Forwarded-Host", "X-Forwarded-Proto"])
async def test_what_is_no_host_prefix_or_scheme_is_not_believed(
    app: FastAPI, header: str, value: str
) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        document = (await http.get("/openapi.json", headers={header: value})).json()
        assert [server["url"] for server in document["servers"]] == ["."]
        moved = await http.get("/docs/", headers={header: value})
        assert moved.headers["Location"] == "/docs"


@pytest.mark.parametrize("path", ["/", "/dp/", "/a/b-c.d"])
def test_a_prefix_is_a_path(path: str) -> None:
    assert ApiSettings(root_path=path).root_path == path.rstrip("/")


@pytest.mark.parametrize(
    "wrong",
    [
        {"root_path": "dp"},
        {"root_path": "http://host/dp"},
        {"root_path": "/a b"},
        {"root_path": "//dp"},
        {"root_path": "/ui"},
        {"root_path": "/v1/dp"},
        {"trusted_proxies": "nginx"},
        {"trusted_proxies": "10.0.0.0/99"},
        {"cors_origins": "studio.example"},
        {"cors_origins": "https://studio.example/"},
        {"cors_origins": "https://a.example https://b.example"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must"):
        ApiSettings.model_validate(wrong)


async def test_keys_are_asked_for_under_a_prefix_as_without(
    redis_server: RedisServer, artifacts: str
) -> None:
    settings = ApiSettings(
        redis_url=redis_server.url, artifacts=artifacts, root_path="/dp", auth=True
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        for prefix in ("", "/dp"):
            assert (await http.get(f"{prefix}/healthz")).status_code == 200
            # Paths that only look like an open one are closed.
            for path in (
                "/v1/jobs",
                "/dp/dp/docs",
                "/x/docs",
                "/ui/gradio_api/queue/join",
                "/docs/../v1/jobs",
            ):
                shut = await http.get(httpx.URL(f"http://localhost{prefix}{path}"))
                assert shut.status_code in (401, 404), path
                assert not shut.is_success
