"""Setups with which nothing can be sent are refused at once, in a sentence without secrets;
proxies; and connections that a server closes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dualprocess import AsyncClient, Client, ConnectionFailed, ImagesRequest, InvalidSetup
from dualprocess.connection import certificates
from tests.client.conftest import Talking
from tests.client.test_client import JOB, SPEC

COMMAND = str(Path(sys.executable).with_name("dualprocess"))
KINDS: list[Callable[..., object]] = [Client, AsyncClient]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
SECRET = "dp_id_topsecret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Removes the machine's own proxy settings."""
    for name in (*PROXIES, *map(str.upper, PROXIES), "SSL_CERT_FILE", "DUALPROCESS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def refused(make: Callable[[], object]) -> str:
    """The whole traceback, as a log would show it."""
    with pytest.raises(InvalidSetup) as raised:
        make()
    return "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "127.0.0.1:8000",
        "service.example",
        "[::1]:8000",
        "//service.example",
        "ftp://service.example",
        "http://",
        "http:/service.example",
        "unix:///run/service",
        "http://service.example:port",
        "http://[::1",
        "http://xn--/",
        "http://service..example",
        "http://service.example:0",
        "http://service.example:65536",
        "",
        f"ftp://me:{SECRET}@service.example",
        f"http://me:{SECRET}/x@service.example",
        f"http://me:1234/{SECRET}@service.example/dp",
        f"me:{SECRET}@service.example",
    ],
)
def test_an_address_that_is_none(kind: Callable[..., object], url: str) -> None:
    said = refused(lambda: kind(url))
    assert "is no address of a service" in said
    assert SECRET not in said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "key",
    [
        f"{SECRET}\n{SECRET}",
        f"dp_a\r\nX: {SECRET}",
        f"{SECRET}\0x",
        f"{SECRET}\x1b[2J",
        f"ü{SECRET}",
    ],
)
def test_a_key_that_no_header_carries_is_never_repeated(
    kind: Callable[..., object], key: str, environment: pytest.MonkeyPatch
) -> None:
    said = refused(lambda: kind("http://service", key))
    assert "the API key has a line break" in said
    assert SECRET not in said
    if "\0" not in key:
        environment.setenv("DUALPROCESS_API_KEY", key)
        assert SECRET not in refused(lambda: kind("http://service"))


def test_a_line_break_behind_the_key_is_no_part_of_it(talking_to: Talking) -> None:
    sent: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["Authorization"])
        return httpx.Response(200, json=JOB)

    talking_to(handle, f"{SECRET}\r\n").job("0" * 26)
    assert sent == [f"Bearer {SECRET}"]


def test_another_header_with_a_line_break_is_not_repeated_or_retried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url) as client:
            said = refused(lambda: client.submit(SPEC, idempotency_key=f"a\n{SECRET}"))
    assert "line break" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "SSL_CERT_FILE names no file: /nowhere/ca.pem"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE holds no PEM certificates"),
        ("SSL_CERT_FILE", str(Path(__file__).parent), "SSL_CERT_FILE names no file"),
        ("ALL_PROXY", f"socks5://me:{SECRET}@127.0.0.1:9", "SOCKS proxy"),
        ("https_proxy", f"socks5h://me:{SECRET}@127.0.0.1:9", "SOCKS proxy"),
        ("HTTP_PROXY", f"quic://me:{SECRET}@127.0.0.1:9", "is no address of a proxy"),
        ("ALL_PROXY", f"http://me:{SECRET}@127.0.0.1:port", "is no address of a proxy"),
    ],
)
def test_an_environment_that_nothing_can_be_sent_in(
    environment: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    environment.setenv(name, value)
    for kind in KINDS:
        whole = refused(lambda kind=kind: kind("https://service.example"))  # type: ignore[misc]
        assert said in whole
        assert SECRET not in whole
        # The proxy is not used for this machine.
        kind("http://127.0.0.1:8000")


def test_all_clients_read_the_authorities_once(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.delenv("SSL_CERT_DIR", raising=False)
    first = certificates("https://one.example")
    assert first.get_ca_certs()
    assert certificates("https://another.example") is first
    (tmp_path / "none.pem").touch()
    environment.setenv("SSL_CERT_DIR", str(tmp_path))
    own = certificates("https://one.example")
    assert own is not first
    assert not own.get_ca_certs()
    # Plain connections on this machine have nothing to do with that.
    assert certificates("http://127.0.0.1:8000").get_ca_certs()


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--url", "localhost:8000"], {}, "must begin with http:// or https://"),
        ([], {"DUALPROCESS_URL": "service.example/dp"}, "must begin with http:// or https://"),
        (["--api-key", f"{SECRET}\nx"], {}, "the API key has a line break"),
        ([], {"DUALPROCESS_API_KEY": f"{SECRET}\nx"}, "the API key has a line break"),
        (
            ["--url", "https://service.example"],
            {"SSL_CERT_FILE": "/nowhere"},
            "SSL_CERT_FILE names no file",
        ),
    ],
)
def test_the_command_line_says_it_in_one_sentence(
    arguments: list[str], variables: dict[str, str], said: str
) -> None:
    done = subprocess.run(
        [COMMAND, "list", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert SECRET not in done.stdout + done.stderr


@contextmanager
def served(
    answer: Callable[[socket.socket, bytes, int], bool],
) -> Iterator[tuple[int, list[bytes]]]:
    """A port, and the requests to it. ``answer`` gets a connection, a request and its number on
    this connection, and says whether the connection stays."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    for number in range(9):
                        request = _request(connection)
                        if not request:
                            break
                        asked.append(request)
                        if not answer(connection, request, number):
                            break

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        piece = connection.recv(65536)
        if not piece:
            return b""
        request += piece
    head, _, body = request.partition(b"\r\n\r\n")
    size = next(
        (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-len")),
        0,
    )
    while len(body) < size:
        body += connection.recv(65536)
    return head


def _job(connection: socket.socket, request: bytes, number: int) -> bool:
    body = httpx.Response(200, json=JOB).content
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return True


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104
def test_no_proxy_is_asked_for_this_machine(
    environment: pytest.MonkeyPatch, variable: str, host: str
) -> None:
    environment.setenv(variable, "http://127.0.0.1:9")
    with served(_job) as (port, asked), Client(f"http://{host}:{port}") as client:
        assert client.job("0" * 26).id == "0" * 26
    assert len(asked) == 1


def test_a_proxy_is_asked_for_other_machines(environment: pytest.MonkeyPatch) -> None:
    with served(_job) as (port, asked):
        environment.setenv("http_proxy", f"http://127.0.0.1:{port}")
        with Client("http://service.example/dp") as client:
            client.job("0" * 26)
    assert asked[0].startswith(b"GET http://service.example/dp/v1/jobs/")


def _closes_after_one(connection: socket.socket, request: bytes, number: int) -> bool:
    """The server reads the second request of a connection, and closes it without an answer."""
    return _job(connection, request, number) if number == 0 else False


CALLS: list[tuple[str, Callable[[Client], object], bool]] = [
    ("GET", lambda client: client.job("0" * 26), True),
    ("GET", lambda client: client.read_artifact("0" * 26, "a"), True),
    ("POST with a key", lambda client: client.submit(SPEC), True),
    (
        "POST without",
        lambda client: client.generate(ImagesRequest(prompt="a", generator="tiny-flux")),
        False,
    ),
]


@pytest.mark.parametrize(("name", "call", "again"), CALLS, ids=[name for name, *_ in CALLS])
def test_a_request_on_a_connection_that_was_just_closed(
    name: str, call: Callable[[Client], object], again: bool
) -> None:
    with (
        served(_closes_after_one) as (port, asked),
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        client.job("0" * 26)
        before = len(asked)
        if again:
            call(client)
        else:
            with pytest.raises(
                ConnectionFailed, match="may have arrived, so it was not sent again"
            ):
                call(client)
        sent = asked[before:]
        assert len(sent) == (2 if again else 1)
        assert len({_key(request) for request in sent}) == 1


def _key(request: bytes) -> bytes:
    lines = request.lower().split(b"\r\n")
    return next((line for line in lines if line.startswith(b"idempotency-key")), b"")


def test_a_stream_that_has_nothing_more_ends(talking_to: Talking) -> None:
    """The service's answer after the last event of an ended job."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(204)

    assert list(talking_to(handle).events("0" * 26, last_event_id="5-0")) == []
    assert asked == [f"/v1/jobs/{'0' * 26}/events"]


def test_a_password_in_the_address_is_kept_out_of_errors(talking_to: Talking) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        Client(f"http://me:{SECRET}@127.0.0.1:{port}/dp") as client,
        pytest.raises(ConnectionFailed) as raised,
    ):
        client.job("0" * 26)
    assert f"http://127.0.0.1:{port}/dp" in str(raised.value)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
