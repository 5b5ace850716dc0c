"""The worst of each route, beside ``/healthz``: nobody else waits for it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.orchestrator.conftest import SPEC
from tests.orchestrator.test_keys import serving
from tests.redis_server import RedisServer

#: Seconds that anybody else's request may take meanwhile.
_MOST = 0.25
#: What others do on this machine can hold it up as well, but not each time.
_TRIES = 4
_PATIENCE = 60
#: No answer to a request that is refused has more bytes.
_MOST_TOLD = 20_000
_LARGE = 30 << 20

pytestmark = pytest.mark.timeout(300)


def _fields(count: int) -> dict[str, int]:
    return {f"f{number}": 1 for number in range(count)}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


#: Bodies that are small for what reading them costs, by what they are full of.
SMALL: dict[str, Callable[[], bytes]] = {
    "unknown fields": lambda: _json(_fields(60_000)),
    "more of them": lambda: _json(_fields(300_000)),
    "fields in each of many specs": lambda: _json({"specs": [_fields(90)] * 500}),
    "questions": lambda: _json(SPEC | {"questions": [{}] * 20_000}),
    "wrong jobs": lambda: _json({"specs": [{}] * 100_000}),
    "metadata": lambda: _json(SPEC | {"metadata": _fields(45_000)}),
    "modules": lambda: _json(SPEC | {"lora": {"target_modules": [1] * 45_000}}),
    "seeds": lambda: _json({"prompt": "a", "seeds": [-1] * 45_000}),
    "lists in lists": lambda: b"[" * 2_000_000,
    "objects in objects": lambda: b'{"a":' * 400_000,
    "the same name": lambda: b"{" + b'"prompt":1,' * 200_000 + b'"prompt":1}',
    "one long number": lambda: b'{"prompt":' + b"1" * (1 << 20) + b"}",
    "escapes": lambda: b'{"prompt":"' + rb"\n" * (1 << 20) + b'"}',
}
#: What a file's limit lets through.
LARGE: dict[str, Callable[[], bytes]] = {
    "a long text": lambda: b'{"prompt":"' + b"a" * _LARGE + b'"}',
    "a long name": lambda: b'{"' + b"a" * _LARGE + b'":1}',
    "spaces": lambda: b" " * _LARGE,
    "a picture of spaces": lambda: b'{"image":"' + b"A " * (_LARGE // 2) + b'"}',
    "a picture of %": lambda: b'{"image":"data:,' + b"%41" * (_LARGE // 3) + b'"}',
}


@dataclass
class Beside:
    """``/healthz``, asked again and again from another thread."""

    address: str
    worst: float = 0.0
    asked: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Beside:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with closing(http.client.HTTPConnection(self.address, timeout=_PATIENCE)) as connection:
            while not self._stop.is_set():
                begun = time.perf_counter()
                connection.request("GET", "/healthz")
                assert connection.getresponse().read() == b"ok"
                self.worst = max(self.worst, time.perf_counter() - begun)
                self.asked += 1
                self._stop.wait(0.005)


@pytest.fixture(scope="module")
def address(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of an API in a process of its own."""
    with serving(redis_server, tmp_path_factory.mktemp("api")) as url:
        yield urlsplit(url).netloc


@pytest.fixture(scope="module")
def routes(address: str) -> list[tuple[str, str]]:
    """Method and path of everything that is documented, with an id that nothing has."""
    paths = httpx.get(f"http://{address}/openapi.json").json()["paths"]
    names = {"job_id": "0" * 26, "batch_id": "0" * 26, "name": "a"}
    return [
        (method.upper(), path.format(**names))
        for path, operations in paths.items()
        for method in operations
    ]


def hold_up(
    address: str, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[float, int, bytes]:
    """The longest that another's request took meanwhile; status and body of the answer."""
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
    with Beside(address) as beside, closing(connection):
        connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        told = answer.read()
    assert beside.asked > 0
    return beside.worst, answer.status, told


def check(
    address: str,
    what: str,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> int:
    """The status, if nobody else was held up, and the answer is not long."""
    least = float("inf")
    for _ in range(_TRIES):
        worst, status, told = hold_up(address, method, path, body, headers or {})
        least = min(least, worst)
        assert status < 500, f"{method} {path[:60]}: {what}: {status}"
        assert len(told) < _MOST_TOLD or status == 200, f"{method} {path[:60]}: {what}"
        if least < _MOST:
            return status
    pytest.fail(f"{method} {path[:60]}: {what} holds others up for {least:.2f} s")


def test_whoever_reads_the_document_first_holds_nobody_up(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    least = 1.0
    for _ in range(_TRIES):
        # A server makes it only once.
        with serving(redis_server, tmp_path) as url:
            begun = time.perf_counter()
            worst, status, _ = hold_up(urlsplit(url).netloc, "GET", "/openapi.json", None, {})
            least = min(least, worst / (time.perf_counter() - begun))
        assert status == 200
        if least < 0.5:
            return
    pytest.fail(f"somebody waits for {least:.0%} of the time that it takes")


@pytest.mark.parametrize("what", SMALL)
def test_small_bodies_hold_nobody_up(
    address: str, routes: list[tuple[str, str]], what: str
) -> None:
    body = SMALL[what]()
    for method, path in routes:
        if method == "POST":
            status = check(address, what, method, path, body)
            assert status == (404 if path.endswith("/cancel") else 422), f"{method} {path}: {what}"


@pytest.mark.parametrize("what", LARGE)
def test_large_bodies_hold_nobody_up(address: str, what: str) -> None:
    body = LARGE[what]()
    for path in ("/v1/jobs", "/v1/answers"):
        assert check(address, what, "POST", path, body) == 422


def test_queries_headers_and_paths_hold_nobody_up(
    address: str, routes: list[tuple[str, str]]
) -> None:
    long = "a" * 20_000
    for method, path in routes:
        if path.endswith("/events"):
            continue
        for what, query in (
            ("parameters", "a&" * 10_000),
            ("one parameter again and again", "limit=1&" * 3000),
            ("a cursor", f"cursor={long}"),
            ("a status", f"status={'%41' * 7000}"),
        ):
            check(address, what, method, f"{path}?{query}")
        check(address, "a path", method, f"{path}/{long}")
        check(
            address, "headers", method, path, headers={f"h{number}": "" for number in range(3000)}
        )
        for name in ("If-None-Match", "If-Match", "Range", "Accept", "Idempotency-Key", "Cookie"):
            check(address, name, method, path, headers={name: '"a",' * 5000})


def test_what_comes_before_a_body_has_a_limit(address: str) -> None:
    long = "a" * (1 << 17)
    for path, headers in ((f"/{long}", {}), ("/v1/jobs", {"Cookie": long})):
        try:
            _, status, _ = hold_up(address, "GET", path, None, headers)
        except ConnectionError:
            # Closed, with the rest unread.
            continue
        assert status == 400
