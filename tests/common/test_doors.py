"""Who may call a GPU service: certificates and tokens, over real gRPC."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dualprocess.v1 import generator_pb2, generator_pb2_grpc
from services.common import healthy as healthy_module
from services.common.channels import open_channel
from services.common.credentials import OPEN, Credentials, CredentialsError
from services.common.exposure import grpc_exposure_fault
from services.common.server import bind, serve
from services.common.settings import GpuServiceSettings, GrpcSettings

TOKEN = Credentials(token="open sesame")
REFUSED, NO_HANDSHAKE = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE


class Generator(generator_pb2_grpc.GeneratorServicer):
    """Describes itself, and streams back as many pictures as it got requests."""

    async def Describe(self, request: Any, context: Any) -> Any:
        return generator_pb2.GeneratorDescribeResponse(preset="mine")

    async def Generate(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]
        async for _ in request_iterator:
            await context.write(generator_pb2.GenerateResponse(seed=7))


@contextlib.asynccontextmanager
async def served(credentials: Credentials) -> AsyncIterator[str]:
    server, port = bind("localhost:0", credentials)
    generator_pb2_grpc.add_GeneratorServicer_to_server(
        Generator(),  # type: ignore[abstract]  # Optimize is never called
        server,
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    await server.start()
    try:
        yield f"localhost:{port}"
    finally:
        await server.stop(None)


async def described(target: str, credentials: Credentials) -> str:
    async with open_channel(target, credentials) as channel:
        stub = generator_pb2_grpc.GeneratorStub(channel)
        request = generator_pb2.GeneratorDescribeRequest()
        return (await stub.Describe(request, timeout=10)).preset


async def generated(target: str, credentials: Credentials, requests: int) -> list[int]:
    async with open_channel(target, credentials) as channel:
        stub = generator_pb2_grpc.GeneratorStub(channel)
        sent = iter([generator_pb2.GenerateRequest()] * requests)
        return [answer.seed async for answer in stub.Generate(sent, timeout=10)]


async def healthy(target: str, credentials: Credentials) -> bool:
    async with open_channel(target, credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass(frozen=True)
class Site:
    """A certificate authority, and its members."""

    authority: trustme.CA

    def credentials(self, *, days: int = 1) -> Credentials:
        """A member whose certificate expires after ``days``; negative for the past."""
        now = datetime.datetime.now(datetime.UTC)
        leaf = self.authority.issue_cert(
            "localhost",
            not_before=now - datetime.timedelta(days=30),
            not_after=now + datetime.timedelta(days=days),
        )
        return Credentials(
            cert=b"".join(blob.bytes() for blob in leaf.cert_chain_pems),
            key=leaf.private_key_pem.bytes(),
            ca=self.authority.cert_pem.bytes(),
        )


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(trustme.CA())


@pytest.fixture(scope="module")
def stranger() -> Site:
    """Signs its own certificate, with the same names."""
    return Site(trustme.CA())


async def refused(target: str, credentials: Credentials, status: grpc.StatusCode) -> str:
    """The refusals of both kinds of calls."""
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await described(target, credentials)
    # Nothing is sent, since grpc.aio reports that it could not send a message, but not why.
    async with open_channel(target, credentials) as channel:
        stream = generator_pb2_grpc.GeneratorStub(channel).Generate(timeout=10)
        assert unary.value.code() == await stream.code() == status
    details = unary.value.details()
    assert details is not None
    return details


async def test_members_of_a_site_know_each_other(site: Site) -> None:
    async with served(site.credentials()) as target:
        assert await described(target, site.credentials()) == "mine"
        assert await generated(target, site.credentials(), 3) == [7, 7, 7]
        assert await healthy(target, site.credentials())


async def test_a_server_of_another_site_is_not_believed(site: Site, stranger: Site) -> None:
    own = site.credentials()
    foreign = replace(stranger.credentials(), ca=own.ca)
    async with served(foreign) as target:
        await refused(target, own, NO_HANDSHAKE)


async def test_a_client_of_another_site_is_not_let_in(site: Site, stranger: Site) -> None:
    own = site.credentials()
    async with served(own) as target:
        await refused(target, replace(stranger.credentials(), ca=own.ca), NO_HANDSHAKE)


async def test_a_client_without_a_certificate_is_not_let_in(site: Site) -> None:
    async with served(site.credentials()) as target:
        await refused(target, Credentials(ca=site.credentials().ca), NO_HANDSHAKE)
        await refused(target, OPEN, NO_HANDSHAKE)


@pytest.mark.parametrize("old", ["server", "client"])
async def test_an_expired_certificate_is_worth_nothing(site: Site, old: str) -> None:
    good, expired = site.credentials(), site.credentials(days=-1)
    server, client = (expired, good) if old == "server" else (good, expired)
    async with served(server) as target:
        await refused(target, client, NO_HANDSHAKE)


async def test_a_certificate_of_another_name_is_not_believed(site: Site) -> None:
    async with served(site.credentials()) as target:
        await refused(target.replace("localhost", "127.0.0.1"), site.credentials(), NO_HANDSHAKE)


async def test_the_token_opens_every_kind_of_call() -> None:
    async with served(TOKEN) as target:
        assert await described(target, TOKEN) == "mine"
        assert await generated(target, TOKEN, 3) == [7, 7, 7]


@pytest.mark.parametrize(
    ("sent", "fault"),
    [
        (OPEN, "has no token"),
        (Credentials(token="open barley"), "has a wrong token"),
        (Credentials(token="open sesam"), "has a wrong token"),
        (Credentials(token="open sesamee"), "has a wrong token"),
    ],
)
async def test_no_call_without_the_token(sent: Credentials, fault: str) -> None:
    async with served(TOKEN) as target:
        said = await refused(target, sent, REFUSED)
        assert fault in said
        assert "DUALPROCESS_GRPC_TOKEN" in said
        assert "sesame" not in said
        # Programs that start containers must be able to ask.
        assert await healthy(target, sent)


async def test_a_refusal_does_not_wait_for_the_request() -> None:
    """Nothing that a stranger sends is read."""
    async with served(TOKEN) as target, grpc.aio.insecure_channel(target) as channel:
        call = generator_pb2_grpc.GeneratorStub(channel).Generate(timeout=10)
        assert await call.code() == REFUSED


async def test_bytes_that_are_no_request_get_a_sentence() -> None:
    async with served(OPEN) as target, grpc.aio.insecure_channel(target) as channel:
        path = "/dualprocess.v1.Generator"
        describe: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        describe = channel.unary_unary(f"{path}/Describe")
        generate: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        generate = channel.stream_stream(f"{path}/Generate")
        bad = b"\xff"
        for call in (describe(bad, timeout=10), generate(iter([bad]), timeout=10)):
            assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "the request can't be read" in await call.details()


async def test_a_token_inside_tls(site: Site) -> None:
    """Without a CA the server asks for no certificates, but still for the token."""
    member = site.credentials()
    async with served(replace(member, ca=None, token="open sesame")) as target:
        assert await described(target, Credentials(ca=member.ca, token="open sesame")) == "mine"
        await refused(target, Credentials(ca=member.ca), REFUSED)


LOOPBACK = ("127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]")
BEYOND = ("0.0.0.0", "::", "[::]", "", "10.0.0.7", "gpu-1", "localhost.example.org")  # noqa: S104


def test_beyond_loopback_callers_are_asked_or_it_is_on_purpose(site: Site) -> None:
    one_sided = replace(site.credentials(), ca=None)
    for host in LOOPBACK:
        assert grpc_exposure_fault(host, OPEN, insecure=False) is None
    for host in BEYOND:
        for credentials in (TOKEN, site.credentials()):
            assert grpc_exposure_fault(host, credentials, insecure=False) is None
        assert grpc_exposure_fault(host, OPEN, insecure=True) is None
        for credentials in (OPEN, one_sided):
            fault = grpc_exposure_fault(host, credentials, insecure=False)
            assert fault is not None
            for remedy in ("DUALPROCESS_GRPC_TOKEN", "--tls-ca", "--insecure"):
                assert remedy in fault


async def test_an_open_service_does_not_even_load() -> None:
    async def load(port: int) -> Any:
        raise AssertionError

    settings = GpuServiceSettings(preset="any", host="0.0.0.0", port=0)  # noqa: S104
    with pytest.raises(CredentialsError, match="--insecure"):
        await serve("dualprocess.v1.Vlm", settings, OPEN, load)


@pytest.fixture
def files(site: Site, tmp_path: Path) -> dict[str, Path]:
    """A member's cert, key and ca as files, and a key that belongs to nothing."""
    member = site.credentials()
    contents = {"cert": member.cert, "key": member.key, "ca": member.ca}
    contents["other"] = site.credentials().key
    for name, content in contents.items():
        assert content is not None
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_files_and_environment_become_credentials(
    files: dict[str, Path], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cert", "key", "ca"):
        monkeypatch.setenv(f"DUALPROCESS_TLS_{name.upper()}", str(files[name]))
    monkeypatch.setenv("DUALPROCESS_GRPC_TOKEN", "open sesame")
    settings = GrpcSettings()
    credentials = settings.credentials()
    assert credentials.is_mutual_tls
    assert credentials.token == "open sesame"
    assert credentials.ca == site.authority.cert_pem.bytes()
    for shown in (repr(settings), repr(credentials)):
        assert "sesame" not in shown
        assert "PRIVATE KEY" not in shown


def test_a_mounted_secret_is_a_setting(tmp_path: Path) -> None:
    """As Docker and Kubernetes pass it, with a newline at its end."""
    (tmp_path / "dualprocess_grpc_token").write_text("open sesame\n")
    settings = GrpcSettings(_secrets_dir=tmp_path)  # type: ignore[call-arg]
    assert settings.credentials() == TOKEN


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"tls_cert": "cert"}, "--tls-cert needs --tls-key"),
        ({"tls_key": "key"}, "--tls-key needs --tls-cert"),
        ({"tls_cert": "cert", "tls_key": "other"}, "--tls-cert .* and --tls-key .* are not a PEM"),
        ({"tls_cert": "cert", "tls_key": "cert"}, "--tls-cert .* and --tls-key .* are not a PEM"),
        ({"tls_ca": "key"}, "--tls-ca .* holds no PEM certificates"),
        ({"tls_ca": "nothing"}, "--tls-ca .*nothing can't be read: No such file"),
        ({"grpc_token": ""}, "DUALPROCESS_GRPC_TOKEN must be"),
        ({"grpc_token": "sésame"}, "DUALPROCESS_GRPC_TOKEN must be"),
        ({"grpc_token": "a\nb"}, "DUALPROCESS_GRPC_TOKEN must be"),
    ],
)
def test_wrong_files_are_named_before_anything_starts(
    files: dict[str, Path], given: dict[str, str], sentence: str
) -> None:
    values = {
        name: value if name == "grpc_token" else files.get(value, Path(value))
        for name, value in given.items()
    }
    settings = GrpcSettings.model_validate(values)
    with pytest.raises(CredentialsError, match=sentence) as refusal:
        settings.credentials()
    assert not re.search("PRIVATE KEY|BEGIN", str(refusal.value))


async def test_a_container_tells_whether_its_service_is_well(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(TOKEN) as target:
        assert await healthy_module.fault(target, None, GrpcSettings()) is None, "without a token"
    assert "UNAVAILABLE" in str(await healthy_module.fault(target, None, GrpcSettings()))

    ours = site.credentials()
    for flag, data in (("cert", ours.cert), ("key", ours.key), ("ca", ours.ca)):
        assert data is not None
        (tmp_path / flag).write_bytes(data)
        monkeypatch.setenv(f"DUALPROCESS_TLS_{flag.upper()}", str(tmp_path / flag))
    async with served(ours) as target:
        address = target.replace("localhost", "127.0.0.1")
        assert await healthy_module.fault(address, "localhost", GrpcSettings()) is None
        said = await healthy_module.fault(address, None, GrpcSettings())
        assert said is not None, "the certificate has another name"
