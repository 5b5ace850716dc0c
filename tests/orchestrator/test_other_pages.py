"""Web pages of other origins and a service without keys: real requests to a real server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from dualprocess import Client, InvalidRequest, JobSpec
from services.orchestrator.api.hosts import Names
from services.orchestrator.api.settings import ApiSettings
from tests.orchestrator.conftest import ASKED, SPEC
from tests.orchestrator.test_keys import created, serving
from tests.redis_server import RedisServer

JSON = {"Content-Type": "application/json"}
EVIL = {"Origin": "https://evil.example"}


@pytest.fixture(scope="module")
def url(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Asks for no key."""
    names = ["--allowed-hosts=dp.example.org, *.studio.example", "--cors-origins=https://a.example"]
    with serving(redis_server, tmp_path_factory.mktemp("open"), *names) as url:
        yield url


@pytest.fixture(scope="module")
def keyed(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(redis_server, tmp_path_factory.mktemp("keyed"), "--auth") as url:
        yield url


def raw(url: str, request: str) -> tuple[int, dict[str, str], str]:
    """The answer to exactly these lines: status, headers, body."""
    address = urlsplit(url)
    assert address.port is not None
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        lines = [*request.splitlines(), "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
    head, _, body = answer.partition("\r\n\r\n")
    status, *fields = head.split("\r\n")
    headers = dict(field.lower().split(": ", 1) for field in fields)
    return int(status.split()[1]), headers, body


@pytest.fixture(scope="module")
def job(url: str) -> str:
    with Client(url) as client:
        return client.submit(JobSpec.model_validate(SPEC)).id


#: Every kind of thing that there is, and a stream.
PATHS = ["/v1/jobs", "/v1/jobs/{job}/events", "/metrics", "/docs", "/healthz", "/ui/", "/nothing"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "api",
    ],
)
def test_a_name_that_others_can_lead_here_reads_nothing(url: str, job: str, host: str) -> None:
    # What a page of that name may add, since it is of one origin with what it asks.
    for more in ("", "\nX-Forwarded-Host: localhost", "\nX-Forwarded-Host: 127.0.0.1:8000"):
        for path in PATHS if not more else PATHS[:1]:
            request = f"GET {path.format(job=job)} HTTP/1.1\nHost: {host}{more}"
            status, headers, body = raw(url, request)
            assert status == 421, path
            assert headers["content-type"] == "application/problem+json"
            assert "--allowed-hosts (DUALPROCESS_ALLOWED_HOSTS)" in json.loads(body)["detail"]
    changed = f"POST /v1/jobs/{job}/cancel HTTP/1.1\nHost: {host}\nX-Requested-With: me"
    assert raw(url, changed)[0] == 421


def test_a_name_that_a_proxy_tells_must_be_one_of_ours(url: str) -> None:
    asked = "GET /v1/jobs HTTP/1.1\nHost: localhost\nX-Forwarded-Host: "
    assert raw(url, asked + "evil.example")[0] == 421
    assert raw(url, asked + "dp.example.org")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:{port}",
        "localhost:{port}",
        "LocalHost",
        "localhost.",
        "a.localhost:1",
        "[::1]:8000",
        "192.168.1.5",
        "dp.example.org",
        "DP.example.org:443",
        "a.b.studio.example",
    ],
)
def test_addresses_and_names_of_ours_are_answered(url: str, host: str) -> None:
    host = host.format(port=urlsplit(url).port)
    assert raw(url, f"GET /v1/jobs HTTP/1.1\nHost: {host}")[0] == 200


@pytest.mark.parametrize(
    "hosts",
    [
        "Host: ",
        "Host: evil.example/path?",
        "Host: a@evil.example",
        "Host: evil.example#",
        "Host: localhost:port",
        "Host: localhost\nHost: evil.example",
        "Host: \xe9vil.example",
    ],
)
@pytest.mark.parametrize("server", ["url", "keyed"])
def test_what_is_no_host_is_refused_and_repeated_nowhere(
    server: str, hosts: str, request: pytest.FixtureRequest
) -> None:
    for path in ("/v1/jobs/", "/docs/"):
        told = raw(request.getfixturevalue(server), f"GET {path} HTTP/1.1\n{hosts}")
        assert told[0] == 400
        assert "location" not in told[1]


@pytest.mark.parametrize("path", ["/v1/jobs/", "/docs/", "/ui", "//evil.example/", "//v1/jobs/"])
def test_a_redirect_names_no_host(keyed: str, path: str) -> None:
    for claimed in ("", "\nX-Forwarded-Host: evil.example", "\nForwarded: host=evil.example"):
        asked = f"GET {path} HTTP/1.1\nHost: evil.example{claimed}\nAuthorization: Bearer x"
        location = raw(keyed, asked)[1].get("location", "/")
        assert "evil" not in location
        assert location.startswith("/")
        assert not location.startswith("//")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        # Requests that pages can send anywhere: `no-cors` requests, and forms.
        ("POST", "/v1/jobs/{job}/cancel", EVIL, ""),
        ("POST", "/v1/jobs/{job}/cancel", {"Origin": "null"}, ""),
        ("POST", "/v1/jobs/{job}/cancel", EVIL | {"Content-Type": "text/plain"}, "{}"),
        ("POST", "/ui/gradio_api/queue/join", EVIL | {"Content-Type": "text/plain"}, "{}"),
        ("POST", "/ui/gradio_api/reset", EVIL, ""),
        # Requests that they could send if their origin were allowed.
        ("POST", "/v1/jobs", EVIL | JSON, json.dumps(SPEC)),
        ("DELETE", "/v1/jobs/{job}", EVIL | ASKED, ""),
        ("OPTIONS", "/v1/jobs", EVIL | {"Access-Control-Request-Method": "POST"}, ""),
        ("GET", "/v1/jobs", EVIL, ""),
        ("GET", "/v1/jobs/{job}/events", EVIL, ""),
        ("GET", "/ui/", EVIL, ""),
        # Pages of other services on this machine are of other origins, too.
        ("POST", "/v1/jobs/{job}/cancel", {"Origin": "http://127.0.0.1:1"} | ASKED, ""),
        ("POST", "/v1/jobs/{job}/cancel", {"Origin": "http://localhost"} | ASKED, ""),
    ],
)
def test_a_page_of_another_origin_is_refused(
    url: str, job: str, method: str, path: str, headers: dict[str, str], body: str
) -> None:
    asked = httpx.request(method, url + path.format(job=job), headers=headers, content=body)
    assert asked.status_code == 403, asked.text
    assert "--cors-origins (DUALPROCESS_CORS_ORIGINS)" in asked.json()["detail"]
    assert "Access-Control-Allow-Origin" not in asked.headers
    assert httpx.get(f"{url}/v1/jobs/{job}").json()["status"] == "queued"


def test_its_own_pages_and_those_that_are_let_in_are_answered(url: str, job: str) -> None:
    for origin in (url, "https://a.example"):
        assert httpx.get(f"{url}/v1/jobs", headers={"Origin": origin}).status_code == 200
        asked = httpx.post(
            f"{url}/v1/jobs", headers={"Origin": origin, "Idempotency-Key": job}, json=SPEC
        )
        assert asked.status_code == 202
    allowed = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    asked = httpx.options(
        f"{url}/v1/jobs", headers=allowed | {"Access-Control-Request-Headers": "x-requested-with"}
    )
    assert asked.status_code == 200
    # Of a proxy that ends TLS: the browser leaves the port out of both.
    through = {"Origin": "https://dp.example.org", "X-Forwarded-Host": "dp.example.org"}
    assert httpx.get(f"{url}/v1/jobs", headers=through).status_code == 200


def changes(url: str) -> Iterator[tuple[str, str]]:
    """Every route that is not only for reading, of the API and of the page."""
    document = httpx.get(f"{url}/openapi.json").json()
    for path, operations in document["paths"].items():
        for method in operations.keys() - {"get", "head", "options"}:
            yield method.upper(), path.replace("{job_id}", "0" * 26).replace("{batch_id}", "0" * 26)
    for name in ("queue/join", "cancel", "reset"):
        yield "POST", f"/ui/gradio_api/{name}"


def test_whatever_changes_something_says_that_no_page_sent_it(url: str) -> None:
    # Old browsers send no origin with a form.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    walked = list(changes(url))
    assert {"DELETE", "POST"} == {method for method, _ in walked}
    for method, path in walked:
        for headers in ({}, form, {"Content-Type": "text/plain"}):
            silent = httpx.request(method, url + path, headers=headers)
            assert silent.status_code == 415, (method, path)
            assert "X-Requested-With: curl" in silent.json()["detail"]
        for headers in (ASKED, JSON):
            told = httpx.request(method, url + path, headers=headers)
            assert told.status_code not in (403, 415), (method, path, told.text)


def test_a_key_says_it_as_well(keyed: str, redis_server: RedisServer) -> None:
    key = created(redis_server, "--scope", "submit", "--scope", "read")
    carried = {"Authorization": f"Bearer {key}"}
    cancel = f"{keyed}/v1/jobs/{'0' * 26}/cancel"
    assert httpx.post(cancel, headers=carried).status_code == 404
    assert httpx.post(cancel, headers=carried | EVIL).status_code == 404
    assert httpx.post(cancel, headers=EVIL).status_code == 401


def test_the_client_says_it_and_tells_a_wrong_name(url: str) -> None:
    with Client(url) as client:
        made = client.submit(JobSpec.model_validate(SPEC))
        assert client.cancel(made.id).status == "cancelled"
        client.delete(made.id)
    # This name points to this machine, and is not one of its own.
    transport = httpx.MockTransport(lambda request: _asked_as("evil.example", url, request))
    with (
        Client("http://evil.example", transport=transport) as client,
        pytest.raises(InvalidRequest, match=r"does not answer to the name evil\.example"),
    ):
        client.models()


def _asked_as(name: str, url: str, request: httpx.Request) -> httpx.Response:
    answer = httpx.request(request.method, url + request.url.path, headers={"Host": name})
    return httpx.Response(answer.status_code, content=answer.content)


@pytest.mark.parametrize(
    ("settings", "name", "has"),
    [
        ({}, "example.org", False),
        ({"auth": True}, "example.org", True),
        ({"auth": True, "allowed_hosts": "example.org"}, "example.org", True),
        ({"auth": True, "allowed_hosts": "example.org"}, "evil.example", False),
        ({"auth": True, "allowed_hosts": "*.example.org"}, "example.org", False),
        ({"allowed_hosts": "*"}, "anything", True),
        ({"host": "box.lan", "insecure": True}, "box.lan:8000", True),
        ({"host": "0.0.0.0", "insecure": True}, "box.lan", False),  # noqa: S104
    ],
)
def test_which_names_it_answers_to(settings: dict[str, object], name: str, has: bool) -> None:
    assert Names(ApiSettings.model_validate(settings).names).have(name) is has


@pytest.mark.parametrize("wrong", ["https://a.example", "a.example:80", "a b", "*.", "*a.example"])
def test_what_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="must be names, separated by commas"):
        ApiSettings(allowed_hosts=wrong)
