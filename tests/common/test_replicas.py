"""Several VLMs behind one target: which of them is called."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
import trustme

from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.credentials import OPEN, Credentials
from services.common.errors import VlmLate, VlmsFailed
from services.common.replicas import Replicas, Told
from services.common.resolve import addresses
from services.common.server import bind
from services.local.ports import free_port

#: Seconds within which a new replica must be used.
SOON = 10.0


class _Vlm(vlm_pb2_grpc.VlmServicer):
    """A VLM that answers with its own name. ``calls`` is how much it reports to have to do."""

    def __init__(self, name: str, calls: int = 0) -> None:
        self.name = name
        self.calls = calls
        self.fails: grpc.StatusCode | None = None
        self.hangs = False

    async def Describe(self, request: Any, context: Any) -> vlm_pb2.VlmDescribeResponse:
        return vlm_pb2.VlmDescribeResponse(calls=self.calls)

    async def Answer(self, request: Any, context: Any) -> vlm_pb2.AnswerResponse:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            await context.abort(self.fails, f"{self.name} broke")
        return vlm_pb2.AnswerResponse(answers=[self.name])


def _new(name: str, calls: int = 0) -> _Vlm:
    return _Vlm(name, calls)  # type: ignore[abstract]  # only asked to answer


@contextlib.asynccontextmanager
async def served(vlm: _Vlm, address: str, credentials: Credentials = OPEN) -> AsyncIterator[int]:
    server, port = bind(address, credentials)
    vlm_pb2_grpc.add_VlmServicer_to_server(vlm, server)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class Heard:
    """Keeps what the callbacks were told."""

    def __init__(self) -> None:
        self.away: list[str] = []
        self.failed: list[str] = []

    @property
    def told(self) -> Told:
        async def away(sentence: str) -> None:
            self.away.append(sentence)

        async def failed(sentence: str) -> None:
            self.failed.append(sentence)

        return Told(away, failed)


async def asked(replicas: Replicas, heard: Heard | None = None, *, seconds: float = 5.0) -> str:
    async def call(stub: vlm_pb2_grpc.VlmAsyncStub) -> vlm_pb2.AnswerResponse:
        return await stub.Answer(vlm_pb2.AnswerRequest(), timeout=seconds)

    answer = await replicas.ask(call, (heard or Heard()).told)
    return answer.answers[0]


@pytest.fixture
async def pair() -> AsyncIterator[tuple[_Vlm, _Vlm, str]]:
    """Two replicas, and the target of both."""
    first, second = _new("first"), _new("second")
    async with served(first, "127.0.0.1:0") as one, served(second, "127.0.0.1:0") as two:
        yield first, second, f"ipv4:127.0.0.1:{one},127.0.0.1:{two}"


async def test_the_least_loaded_is_asked(pair: tuple[_Vlm, _Vlm, str]) -> None:
    first, second, target = pair
    async with Replicas(target, OPEN, name="vlm") as replicas:
        for first.calls, second.calls, least in ((0, 1, "first"), (7, 3, "second")):
            assert {await asked(replicas) for _ in range(4)} == {least}
        second.calls = first.calls
        shares = Counter([await asked(replicas) for _ in range(40)])
    assert min(shares["first"], shares["second"]) > 5, "equals share the work"


async def test_a_call_that_a_replica_failed_is_anothers(pair: tuple[_Vlm, _Vlm, str]) -> None:
    first, second, target = pair
    first.fails, second.calls = grpc.StatusCode.INTERNAL, 5
    heard = Heard()
    async with Replicas(target, OPEN, name="vlm") as replicas:
        assert [await asked(replicas, heard) for _ in range(5)] == ["second"] * 5
        (sentence,) = heard.failed
        assert "first broke" in sentence
        assert heard.away == []
        second.fails = grpc.StatusCode.INTERNAL
        with pytest.raises(VlmsFailed, match=r"second broke .*; first broke"):
            await asked(replicas)


async def test_the_only_replica_is_asked_twice() -> None:
    vlm, heard = _new("only"), Heard()
    vlm.fails = grpc.StatusCode.INTERNAL
    async with (
        served(vlm, "127.0.0.1:0") as port,
        Replicas(f"127.0.0.1:{port}", OPEN, name="vlm") as replicas,
    ):
        with pytest.raises(VlmsFailed):
            await asked(replicas, heard)
        assert len(heard.failed) == 1


async def test_what_a_replica_refuses_is_asked_of_no_other(pair: tuple[_Vlm, _Vlm, str]) -> None:
    first, second, target = pair
    first.fails = second.fails = grpc.StatusCode.INVALID_ARGUMENT
    async with Replicas(target, OPEN, name="vlm") as replicas:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked(replicas)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_whoever_is_late_is_left(pair: tuple[_Vlm, _Vlm, str]) -> None:
    first, second, target = pair
    first.hangs, second.calls = True, 5
    async with Replicas(target, OPEN, name="vlm") as replicas:
        assert [await asked(replicas, seconds=0.5) for _ in range(3)] == ["second"] * 3
        second.hangs = True
        with pytest.raises(VlmLate, match="no answer in time, 3 times in a row"):
            await asked(replicas, seconds=0.1)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and never answers, like a stopped process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_who_does_not_answer_keeps_nobody_waiting(silent: str) -> None:
    async with (
        served(_new("awake"), "127.0.0.1:0") as port,
        Replicas(f"ipv4:{silent},127.0.0.1:{port}", OPEN, name="vlm") as replicas,
    ):
        begin = time.monotonic()
        assert [await asked(replicas) for _ in range(3)] == ["awake"] * 3
        assert time.monotonic() - begin < SOON


async def test_a_replica_that_vanished_is_left_and_used_again_once_it_is_back() -> None:
    vanishing, heard = _new("vanishing"), Heard()
    port = free_port()
    async with served(_new("stays", calls=1), "127.0.0.1:0") as other:
        target = f"ipv4:127.0.0.1:{port},127.0.0.1:{other}"
        async with Replicas(target, OPEN, name="vlm") as replicas:
            async with served(vanishing, f"127.0.0.1:{port}"):
                assert await asked(replicas, heard) == "vanishing"
            assert [await asked(replicas, heard) for _ in range(3)] == ["stays"] * 3
            assert heard.away == [], "nobody had to wait"
            async with served(vanishing, f"127.0.0.1:{port}"):
                await until(replicas, "vanishing")


async def until(replicas: Replicas, name: str) -> None:
    """Waits until this one is called. Fails if that takes too long."""
    async with asyncio.timeout(SOON):
        while await asked(replicas) != name:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that this machine's resolver knows in addition."""
    known: dict[str, list[str]] = {}
    usual = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host not in known:
            return usual(host, port, *args, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


async def test_a_name_that_gets_another_address_brings_a_replica(
    names: dict[str, list[str]],
) -> None:
    """Over TLS: each address must show the name's certificate."""
    authority = trustme.CA()
    leaf = authority.issue_cert("vlm.example")
    credentials = Credentials(
        cert=b"".join(blob.bytes() for blob in leaf.cert_chain_pems),
        key=leaf.private_key_pem.bytes(),
        ca=authority.cert_pem.bytes(),
    )
    names["vlm.example"] = ["127.0.0.1", "127.0.0.3"]
    port = free_port()
    async with (
        served(_new("old", calls=1), f"127.0.0.1:{port}", credentials),
        Replicas(f"dns:///vlm.example:{port}", credentials, name="vlm") as replicas,
    ):
        assert await asked(replicas) == "old"
        async with served(_new("new"), f"127.0.0.2:{port}", credentials):
            names["vlm.example"] = ["127.0.0.1", "127.0.0.2"]
            await until(replicas, "new")
        names["vlm.example"] = ["127.0.0.1"]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("two:50052", ["ipv4:10.0.0.1:50052", "ipv6:[fd00::1]:50052"]),
        ("dns:///two:50052", ["ipv4:10.0.0.1:50052", "ipv6:[fd00::1]:50052"]),
        ("dns:two:50052", ["ipv4:10.0.0.1:50052", "ipv6:[fd00::1]:50052"]),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", ["ipv4:10.0.0.1:1", "ipv4:10.0.0.2:1"]),
        ("ipv6:[fd00::1]:1,[fd00::2]:1", ["ipv6:[fd00::1]:1", "ipv6:[fd00::2]:1"]),
        *((one, [one]) for one in ("one:1", "127.0.0.1:1", "[::1]:1", "unix:/run/vlm")),
        ("dns://8.8.8.8/two:50052", ["dns://8.8.8.8/two:50052"]),
        ("unknown.invalid:1", ["unknown.invalid:1"]),
    ],
)
async def test_what_is_behind_a_target(
    names: dict[str, list[str]], target: str, found: list[str]
) -> None:
    names |= {"two": ["10.0.0.1", "fd00::1"], "one": ["10.0.0.1"]}
    assert await addresses(target) == found
