"""Gradio's routes: a session belongs to the key that began it, and nothing makes them fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualprocess import Client
from tests.e2e.conftest import red_circle

#: The name of both visitors' sessions.
SHARED = "shared"
API = "/ui/gradio_api"
#: The id of a Gradio event that does not exist.
NO_EVENT = "0" * 32


@dataclass(frozen=True)
class Tab:
    """Somebody's browser, as Gradio's scripts send its requests."""

    http: httpx.Client
    functions: dict[str, int]
    session: str = SHARED

    def join(self, name: str, *data: Any, **changes: Any) -> httpx.Response:
        body = {"fn_index": self.functions[name], "data": data, "session_hash": self.session}
        return self.http.post(f"{API}/queue/join", json=body | changes)

    def cancel(self, name: str, event: str) -> httpx.Response:
        body = {"fn_index": self.functions[name], "event_id": event}
        return self.http.post(f"{API}/cancel", json=body | {"session_hash": self.session})

    def messages(self) -> Iterator[dict[str, Any]]:
        """The messages until the end of everything that runs."""
        with self.http.stream("GET", f"{API}/queue/data?session_hash={self.session}") as stream:
            assert stream.status_code == 200
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))


@pytest.fixture(scope="module")
def functions(url: str) -> dict[str, int]:
    """Numbers of the page's functions, by name."""
    listed = httpx.get(f"{url}/ui/config", timeout=60).json()["dependencies"]
    return {one["api_name"]: one["id"] for one in listed if one["queue"]}


@pytest.fixture(scope="module")
def tabs(url: str, keys: dict[str, str], functions: dict[str, int]) -> Iterator[dict[str, Tab]]:
    """Of anna, of ben, and of somebody without a key."""
    headers = {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
    headers["nobody"] = {}
    clients = {
        name: httpx.Client(base_url=url, headers=sent, timeout=60) for name, sent in headers.items()
    }
    yield {name: Tab(client, functions) for name, client in clients.items()}
    for client in clients.values():
        client.close()


def test_a_session_is_there_for_the_key_that_began_it(
    url: str, keys: dict[str, str], tabs: dict[str, Tab]
) -> None:
    anna, ben, nobody = (tabs[name] for name in ("anna", "ben", "nobody"))
    with Client(url, keys["anna"]) as client:
        job = client.submit(red_circle(name="of anna"))
    event = anna.join("watching", f"{job.id} 1").json()["event_id"]
    told = anna.messages()
    seen = next(message for message in told if message["msg"] == "process_generating")
    assert "of anna" in json.dumps(seen)

    for stranger, status in ((ben, 404), (nobody, 401)):
        heard = stranger.http.get(f"{API}/queue/data", params={"session_hash": SHARED})
        assert heard.status_code == status
        assert stranger.cancel("watching", event).status_code == status
        stranger.http.post(f"{API}/reset", json={"event_id": event})
        with stranger.http.stream("GET", f"{API}/heartbeat/{SHARED}") as heartbeat:
            assert heartbeat.status_code == (401 if stranger is nobody else 200)
    # A session that only looks like hers is ben's.
    own = ben.join("listed", "LoRAs", None).json()["event_id"]
    assert ben.cancel("watching", event).status_code == 404
    messages = list(ben.messages())
    assert {message.get("event_id") for message in messages} == {own, None}
    assert "of anna" not in json.dumps(messages)

    # Hers goes on until she ends it.
    assert anna.cancel("watching", event).json() == {"success": True}
    rest = [message["msg"] for message in told]
    assert rest[-2:] == ["process_completed", "close_stream"]
    assert anna.cancel("watching", event).status_code == 404


#: Gradio's routes that are open to anybody.
OPEN = {
    ("GET", "/"): 200,
    ("HEAD", "/"): 200,
    ("GET", "/config"): 200,
    ("GET", "/config/"): 404,
    ("GET", "/theme.css"): 200,
    ("GET", "/manifest.json"): 200,
    ("GET", "/favicon.ico"): 200,
    ("GET", "/static/{path:path}"): 404,
    ("GET", "/assets/{path:path}"): 404,
    ("GET", "/gradio_api/app_id"): 200,
    ("GET", "/gradio_api/startup-events"): 200,
    ("GET", "/gradio_api/theme.css"): 200,
}
#: Routes that need a key, and the answer if ben names anna's session and event.
WORK = {
    ("POST", "/gradio_api/queue/join"): 400,
    ("GET", "/gradio_api/queue/data"): 404,
    ("POST", "/gradio_api/cancel"): 404,
    ("POST", "/gradio_api/reset"): 200,
    ("POST", "/gradio_api/reset/"): 200,
    ("GET", "/gradio_api/heartbeat/{session_hash}"): 200,
}


#: In a process of its own: Gradio leaves a socket open in each.
LISTED = """
import json
from fastapi.routing import iter_route_contexts
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings

routes = create_app(ApiSettings(ui=True)).routes
(mounted,) = [one for one in routes if getattr(one, "path", "") == "/ui"]
(page,) = [one for one in mounted.app.build().routes if getattr(one, "path", "") == "/ui"]
found = [(one.path, sorted(one.methods)) for one in iter_route_contexts(page.app.routes)]
print(json.dumps(found))
"""


#: A request that names anna's session.
_JOIN = {"session_hash": SHARED, "fn_index": 10**6, "data": []}
_CANCEL = {"session_hash": SHARED, "fn_index": 0, "event_id": NO_EVENT}
_RESET = {"event_id": NO_EVENT}
BODIES: dict[str, dict[str, Any]] = {
    "/gradio_api/queue/join": _JOIN,
    "/gradio_api/cancel": _CANCEL,
    "/gradio_api/reset": _RESET,
    "/gradio_api/reset/": _RESET,
}


def gradios_routes() -> set[tuple[str, str]]:
    """Methods and paths of everything that Gradio brings along, whatever its version."""
    done = subprocess.run(
        [sys.executable, "-c", LISTED], capture_output=True, text=True, check=True
    )
    listed = json.loads(done.stdout.splitlines()[-1])
    return {(method, path) for path, methods in listed for method in methods}


def test_every_route_of_gradio_is_shut_but_those_that_the_page_needs(tabs: dict[str, Tab]) -> None:
    routes = gradios_routes()
    assert routes >= OPEN.keys() | WORK.keys()
    anna, ben, nobody = (tabs[name] for name in ("anna", "ben", "nobody"))
    anna.join("listed", "LoRAs", None)
    for method, path in sorted(routes):
        address = "/ui" + path.replace("{session_hash}", SHARED).replace(":path}", "}")
        with ben.http.stream(
            method, address, params={"session_hash": "other"}, json=BODIES.get(path, {})
        ) as got:
            wanted = OPEN.get((method, path), WORK.get((method, path), 404))
            assert got.status_code == wanted, (method, path)
        with nobody.http.stream(method, address, json=BODIES.get(path, {})) as got:
            if (method, path) in WORK:
                wanted = 401
            assert got.status_code == wanted, (method, path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = (
    SCALARS
    | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3)
    | st.dictionaries(st.text(max_size=4), SCALARS, max_size=3)
)
fuzzed = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def is_a_sentence(answer: httpx.Response) -> bool:
    problem = answer.json()
    return bool(problem["title"] and problem["detail"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fn_index", 10**6),
        ("fn_index", -1),
        ("fn_index", None),
        ("fn_index", "0"),
        ("fn_index", True),
        ("data", []),
        ("data", ["LoRAs", None, None]),
        ("data", [7, None]),
        ("data", ["Neither", None]),
        ("data", "LoRAs"),
        ("session_hash", None),
        ("session_hash", ""),
        ("session_hash", "a" * 65),
        ("session_hash", "a.b"),
        ("session_hash", "a\n"),
        ("session_hash", "a<gradio-sep>b"),
        ("trigger_id", 10**6),
        ("trigger_id", "a"),
        ("event_id", NO_EVENT),
        ("batched", True),
    ],
)
def test_what_the_queue_cannot_use_is_refused_by_field(
    tabs: dict[str, Tab], field: str, value: Any
) -> None:
    answer = tabs["anna"].join("listed", *["LoRAs", None], **{field: value})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in answer.json()["detail"]


def test_a_request_without_a_session_is_refused(tabs: dict[str, Tab]) -> None:
    http = tabs["anna"].http
    for body in (b"", b"{", b"[]", b"null", b"{}", b"[" * 30, b"\xff"):
        for route in ("queue/join", "cancel", "reset"):
            answer = http.post(f"{API}/{route}", content=body)
            assert answer.status_code == 400, (route, body[:9])
            assert is_a_sentence(answer)
    assert http.get(f"{API}/queue/data").status_code == 400


@fuzzed
@given(data=st.data())
def test_no_body_makes_gradio_fail(tabs: dict[str, Tab], data: st.DataObject) -> None:
    """A valid request with one or two fields changed, since random data would test less."""
    tab = tabs["anna"]
    body = {
        "session_hash": "fuzz",
        "fn_index": tab.functions["listed"],
        "data": ["LoRAs", None],
        "event_id": NO_EVENT,
        "trigger_id": None,
        "event_data": None,
    }
    route, left_out = data.draw(
        st.sampled_from(
            [
                ("queue/join", {"event_id"}),
                ("cancel", {"data", "trigger_id", "event_data"}),
                ("reset", body.keys() - {"event_id"}),
            ]
        )
    )
    body = {name: value for name, value in body.items() if name not in left_out}
    names = st.sampled_from([*body, "batched", "simple_format", "oauth_token"])
    body |= data.draw(st.dictionaries(names, ANYTHING, min_size=1, max_size=2))
    answer = tab.http.post(f"{API}/{route}", content=json.dumps(body))
    assert answer.status_code in (200, 400, 404, 429), answer.text
    assert answer.is_success or is_a_sentence(answer)


@fuzzed
@given(
    path=st.sampled_from(["", "config", "theme.css", "assets", "static", "gradio_api/queue/data"]),
    rest=st.binary(max_size=12),
    query=st.dictionaries(
        st.sampled_from(["page", "deep_link", "session_hash", "__theme", "job"]),
        st.text(max_size=12),
    ),
)
def test_no_address_makes_gradio_fail(
    tabs: dict[str, Tab], path: str, rest: bytes, query: dict[str, str]
) -> None:
    for address in (f"/ui/{path}", f"/ui/{path}/{quote(rest, safe='/')}"):
        assert tabs["anna"].http.get(address, params=query).status_code < 500
