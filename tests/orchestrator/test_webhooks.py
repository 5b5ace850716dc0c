"""Webhooks: who gets messages about a job's end, how often, and which addresses are refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from dualprocess import WebhookMessage
from dualprocess.schemas import Job, JobStatus, WebhookState, WebhookStatus
from dualprocess.schemas.webhooks import secret_bytes
from services.orchestrator.api.app import create_app
from services.orchestrator.api.settings import ApiSettings
from services.orchestrator.store.redis import Client
from services.orchestrator.webhooks import addresses
from services.orchestrator.webhooks.addresses import AddressPolicy, is_public
from services.orchestrator.webhooks.post import NotDelivered, Poster
from tests.orchestrator.conftest import ASKED, SPEC, Api, Site
from tests.orchestrator.receiver import Received, Receiver, receiving
from tests.orchestrator.scripted import ScriptedGenerator
from tests.redis_server import RedisServer

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@contextlib.asynccontextmanager
async def serving(redis_server: RedisServer, artifacts: str, **changes: Any) -> AsyncIterator[Api]:
    """A replica of the API that may reach loopback."""
    settings = ApiSettings(
        redis_url=redis_server.url,
        artifacts=artifacts,
        poll_seconds=0.02,
        webhook_loopback=True,
        **{"webhook_pauses": [0.1, 0.1, 0.1]} | changes,
    )
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost", headers=ASKED
        ) as http,
    ):
        yield Api(http)


@pytest.fixture
async def hooked(redis: Client, redis_server: RedisServer, artifacts: str) -> AsyncIterator[Api]:
    async with serving(redis_server, artifacts) as api:
        yield api


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def verified(received: Received, key: bytes = KEY) -> WebhookMessage:
    """The message, if its signature is right by the formula of standardwebhooks.com."""
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    return WebhookMessage.model_validate_json(received.body)


def state(job: Job) -> WebhookState:
    assert job.webhook is not None
    return job.webhook


async def submitted(api: Api, receiver: Receiver, **changes: Any) -> Job:
    return await api.submit(webhook={"url": receiver.url, "secret": SECRET}, **changes)


async def test_the_end_of_a_job_is_told_and_signed(
    hooked: Api, site: Site, receiver: Receiver
) -> None:
    job = await submitted(hooked, receiver)
    assert (state(job).status, state(job).attempts) == (WebhookStatus.WAITING, 0)
    site.start_worker()
    (received,) = await receiver.until(1)
    told = verified(received)
    job = await hooked.until(job.id, lambda job: state(job).status == WebhookStatus.DELIVERED)
    assert (told.type, told.timestamp) == ("job.succeeded", job.finished_at)
    assert told.data == job.model_copy(update={"webhook": None})
    assert (told.data.scores.drift, told.data.scores.diversity) == (0.25, 0.75)
    assert (received.path, received.headers["host"]) == (
        "/hook?for=me",
        f"127.0.0.1:{receiver.port}",
    )
    assert state(job).attempts == 1


async def test_failed_and_cancelled_jobs_tell_it_too(
    hooked: Api, site: Site, receiver: Receiver, generator: ScriptedGenerator
) -> None:
    queued = await submitted(hooked, receiver)
    await hooked.http.post(f"/v1/jobs/{queued.id}/cancel")
    (received,) = await receiver.until(1)
    assert verified(received).type == "job.cancelled"
    generator.breaks = 3
    poison = await submitted(hooked, receiver)
    site.start_worker()
    told = verified((await receiver.until(2))[1])
    assert (told.type, told.data.id) == ("job.failed", poison.id)
    assert "out of memory, killed" in (told.data.error or "")


async def test_a_secret_is_never_shown_and_goes_when_it_is_not_needed(
    hooked: Api, site: Site, receiver: Receiver, redis: Client
) -> None:
    headers = {"Idempotency-Key": "mine"}
    body = SPEC | {"webhook": {"url": receiver.url, "secret": SECRET}}
    answers = [await hooked.http.post("/v1/jobs", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    site.start_worker()
    job = await hooked.ended(answers[0].json()["id"])
    (received,) = await receiver.until(1)
    job = await hooked.until(job.id, lambda job: state(job).status == WebhookStatus.DELIVERED)
    shown = [answer.text for answer in answers] + [
        (await hooked.http.get(f"/v1/jobs/{job.id}")).text,
        (await hooked.http.get("/v1/jobs")).text,
        (await hooked.events(job.id)).text,
        received.body.decode(),
    ]
    for artifact in job.artifacts:
        answer = await hooked.http.get(f"/v1/jobs/{job.id}/artifacts/{artifact.name}")
        shown.append(answer.content.decode("latin-1"))
    assert not any(SECRET.removeprefix("whsec_") in text for text in shown)
    assert SECRET not in str(await redis.hgetall(f"dualprocess:job:{job.id}"))
    # The resolved spec stays what can be submitted again.
    spec = (await hooked.http.get(f"/v1/jobs/{job.id}/artifacts/job.json")).json()
    assert (await hooked.http.post("/v1/jobs", json=spec)).status_code == 202


async def test_retries_carry_the_same_id_and_body(
    hooked: Api, site: Site, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 204]
    site.start_worker()
    job = await submitted(hooked, receiver)
    received = await receiver.until(3)
    assert {one.headers["webhook-id"] for one in received} == {f"msg_{job.id}"}
    assert len({one.body for one in received}) == 1
    assert [verified(one).data.id for one in received] == [job.id] * 3
    job = await hooked.until(job.id, lambda job: state(job).status == WebhookStatus.DELIVERED)
    assert (state(job).attempts, state(job).error) == (3, None)


async def test_a_receiver_that_is_down_at_first_gets_it_later(hooked: Api) -> None:
    async with receiving() as receiver:
        pass
    job = await submitted(hooked, receiver)
    await hooked.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await hooked.until(job.id, lambda job: state(job).error)
    assert state(job).status == WebhookStatus.PENDING
    async with receiving(receiver):
        await receiver.until(1)
        job = await hooked.until(job.id, lambda job: state(job).status == WebhookStatus.DELIVERED)
    assert state(job).attempts > 1


async def test_after_the_last_attempt_it_is_given_up_and_the_job_says_why(
    hooked: Api, receiver: Receiver
) -> None:
    receiver.answers = [503] * 9
    job = await submitted(hooked, receiver)
    await hooked.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await hooked.until(job.id, lambda job: state(job).status == WebhookStatus.GIVEN_UP)
    assert (state(job).attempts, len(receiver.got)) == (4, 4)
    assert "503" in (state(job).error or "")


async def test_a_receiver_that_is_gone_is_asked_once(hooked: Api, receiver: Receiver) -> None:
    receiver.answers = [410]
    job = await submitted(hooked, receiver)
    await hooked.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await hooked.until(job.id, lambda job: state(job).status == WebhookStatus.GIVEN_UP)
    assert state(job).attempts == 1


async def test_many_replicas_deliver_once(
    redis: Client, redis_server: RedisServer, artifacts: str, receiver: Receiver
) -> None:
    receiver.slow = 0.2
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(serving(redis_server, artifacts)) for _ in range(3)
        ]
        jobs = [await submitted(replicas[0], receiver) for _ in range(10)]
        for job in jobs:
            await replicas[1].http.post(f"/v1/jobs/{job.id}/cancel")
        for job in jobs:
            await replicas[2].until(
                job.id, lambda job: state(job).status == WebhookStatus.DELIVERED
            )
    assert len(receiver.got) == len(jobs)


async def test_what_ended_while_no_replica_lived_is_told_by_the_next(
    redis: Client, redis_server: RedisServer, artifacts: str, site: Site, receiver: Receiver
) -> None:
    async with serving(redis_server, artifacts) as api:
        job = await submitted(api, receiver)
    site.start_worker()
    async with asyncio.timeout(10):
        while not await redis.zcard("dualprocess:jobs:webhooks"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with serving(redis_server, artifacts):
        (received,) = await receiver.until(1)
    assert verified(received).data.id == job.id


async def test_the_services_secret_signs_where_the_job_has_none(
    redis: Client, redis_server: RedisServer, artifacts: str, receiver: Receiver
) -> None:
    async with serving(redis_server, artifacts) as api:
        answer = await api.http.post("/v1/jobs", json=SPEC | {"webhook": {"url": receiver.url}})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "webhook.secret"
    async with serving(redis_server, artifacts, webhook_secret=SECRET) as api:
        job = await api.submit(webhook={"url": receiver.url})
        await api.http.post(f"/v1/jobs/{job.id}/cancel")
        verified((await receiver.until(1))[0])


WRONG = [
    ("http://example.com/", "https"),
    ("ftp://example.com/", "https"),
    ("https:///path", "https"),
    ("no url", "https"),
    ("https://user:pass@example.com/", "user"),
    ("https://localhost/", "127.0.0.1"),
    ("https://127.0.0.1/", "public"),
    ("https://127.1/", "127.0.0.1"),
    ("https://2130706433/", "127.0.0.1"),
    ("https://0x7f000001/", "127.0.0.1"),
    ("https://0177.0.0.1/", "https://host/path"),
    ("https://0/", "0.0.0.0"),  # noqa: S104
    ("https://0.0.0.0/", "public"),
    ("https://[::]/", "public"),
    ("https://[::1]/", "public"),
    ("https://[::ffff:127.0.0.1]/", "public"),
    ("https://[::ffff:a9fe:a9fe]/", "public"),
    ("https://169.254.169.254/latest/meta-data/", "public"),
    ("https://2852039166/", "169.254.169.254"),
    ("https://10.0.0.1/", "public"),
    ("https://[fe80::1]/", "public"),
    ("https://no-such-host.invalid/", "address"),
    ("https://xn--/", "a wrong xn-- part"),
    ("https://xn--a.example/", "a wrong xn-- part"),
    ("https://example.com:99999/", "write 1 to 65535"),
    ("https://example.com:0/", "write 1 to 65535"),
    ("https://example.com:-1/", "write 1 to 65535"),
    ("https://example..com/", "parts of 1 to 63"),
    ("https://%31/", "parts of 1 to 63"),
    (f"https://{'a' * 64}.com/", "parts of 1 to 63"),
    (f"https://{'a.' * 200}com/", "at most 253 characters"),
    ("https://[fe80::1%25eth0]/", "address"),
    ("https://☃.net/", "is not a URL"),
]


@pytest.mark.parametrize(("url", "remedy"), WRONG, ids=[url for url, _ in WRONG])
async def test_an_address_that_is_not_the_internets_is_refused(
    api: Api, url: str, remedy: str
) -> None:
    body = SPEC | {"webhook": {"url": url, "secret": SECRET}}
    answer = await api.http.post("/v1/jobs", json=body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["field"] == "webhook.url"
    assert remedy in error["message"]
    assert (await api.http.get("/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", SECRET.removeprefix("whsec_")]
)
async def test_a_weak_secret_is_refused_and_not_repeated(api: Api, secret: str) -> None:
    body = SPEC | {"webhook": {"url": "https://example.com", "secret": secret}}
    answer = await api.http.post("/v1/jobs", json=body)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["field"]) == (422, "webhook.secret")
    assert len(secret) < 8 or secret not in answer.text


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


def test_a_secret_has_24_to_64_bytes() -> None:
    assert [len(secret_bytes(secret_of(size))) for size in (24, 64)] == [24, 64]
    for wrong in (secret_of(23), secret_of(65), secret_of(32) + "é", "whsek_" + secret_of(32)):
        with pytest.raises(ValueError, match="must be whsec_ and 24 to 64 random bytes"):
            secret_bytes(wrong)


_NOT_PUBLIC = """
127.0.0.1 127.255.0.1 0.0.0.0 0.1.2.3 10.1.2.3 100.64.0.1 169.254.169.254 172.16.0.1 192.168.0.1
192.0.0.8 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
255.255.255.255 :: ::1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 ::7f00:1 fc00::1 fd00:ec2::254
fe80::1 fe80::1%eth0 fec0::1 ff02::1 2001:db8::1 2001::1 2002:7f00:1:: 2002:a9fe:a9fe::1 3fff::1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 5f00::1
"""
NOT_PUBLIC = _NOT_PUBLIC.split()
PUBLIC = ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_a_name_that_stands_for_an_inner_address_is_refused_at_connect(address: str) -> None:
    """However the name passed when the job was submitted: names change."""

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.215.14", address]

    poster = Poster(AddressPolicy(resolve=resolve))
    with pytest.raises(NotDelivered, match="public internet"):
        await poster.post("https://rebound.example/", {}, b"")


@pytest.mark.parametrize("address", PUBLIC)
async def test_public_addresses_pass(address: str) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return [address]

    policy = AddressPolicy(resolve=resolve)
    assert await policy.addresses("hooks.example", 443, scheme="https") == [address]


async def test_http_is_for_loopback_alone() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["8.8.8.8"]

    policy = AddressPolicy(loopback=True, resolve=resolve)
    with pytest.raises(NotDelivered, match="https"):
        await Poster(policy).post("http://hooks.example/", {}, b"")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of hooks.example, signed by itself; its key is in the same file."""
    path = tmp_path / "hooks.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    names = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    files = ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


async def _here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def test_tls_and_host_stay_the_names_though_the_address_is_connected(
    certificate: Path,
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    asked: list[str | None] = []
    server.sni_callback = lambda _, name, __: asked.append(name)
    policy = AddressPolicy(loopback=True, resolve=_here)
    trusting = ssl.create_default_context(cafile=certificate)
    async with receiving(tls=server) as receiver:
        url = f"https://hooks.example:{receiver.port}/hook"
        await Poster(policy, tls=trusting).post(url, {}, b"hello")
        assert receiver.got[0].headers["host"] == f"hooks.example:{receiver.port}"
        assert asked == ["hooks.example"]
        with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
            await Poster(policy).post(url, {}, b"hello")
        wrong = f"https://other.example:{receiver.port}/hook"
        with pytest.raises(NotDelivered, match="CERTIFICATE_VERIFY_FAILED"):
            await Poster(policy, tls=trusting).post(wrong, {}, b"hello")


async def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [307]
    with pytest.raises(NotDelivered, match="redirect"):
        await Poster(AddressPolicy(loopback=True)).post(receiver.url, {}, b"")
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("status", "what", "gone"),
    [
        (200, "", False),
        (299, "", False),
        (300, "the answer was 300: a redirect, which is not followed", False),
        (399, "the answer was 399: a redirect, which is not followed", False),
        (400, "the answer was 400: not 2xx", False),
        (410, "the answer was 410: not 2xx", True),
        (503, "the answer was 503: not 2xx", False),
    ],
)
async def test_what_an_answer_means(receiver: Receiver, status: int, what: str, gone: bool) -> None:
    receiver.answers = [status]
    poster = Poster(AddressPolicy(loopback=True))
    if not what:
        await poster.post(receiver.url, {}, b"")
        return
    with pytest.raises(NotDelivered) as caught:
        await poster.post(receiver.url, {}, b"")
    assert (str(caught.value), caught.value.gone) == (what, gone)


@pytest.mark.parametrize(("body", "whole"), [(64 << 10, True), (64 << 20, False)])
async def test_an_answer_is_read_unless_it_is_endless(
    receiver: Receiver, body: int, whole: bool
) -> None:
    # A 204 has no body, whatever is behind it.
    receiver.answers, receiver.body = [200], body
    await Poster(AddressPolicy(loopback=True)).post(receiver.url, {}, b"")
    await asyncio.wait(receiver.serving)
    assert receiver.read_whole == whole


async def test_a_receiver_that_does_not_answer_is_left(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    monkeypatch.setattr("services.orchestrator.webhooks.post.POST_SECONDS", 0.2)
    receiver.slow = 1
    with pytest.raises(NotDelivered, match="no answer"):
        await Poster(AddressPolicy(loopback=True)).post(receiver.url, {}, b"")


async def test_the_second_address_is_tried_when_the_first_is_closed(receiver: Receiver) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    policy = AddressPolicy(loopback=True, resolve=resolve)
    await Poster(policy).post(f"http://two.example:{receiver.port}/", {}, b"")
    assert len(receiver.got) == 1


def test_public_is_what_the_list_says() -> None:
    assert not any(is_public(ipaddress.ip_address(address)) for address in NOT_PUBLIC)
    assert all(is_public(ipaddress.ip_address(address)) for address in PUBLIC)


async def test_a_job_without_a_webhook_tells_nobody(hooked: Api, redis: Client) -> None:
    job = await hooked.submit()
    await hooked.http.post(f"/v1/jobs/{job.id}/cancel")
    job = await hooked.ended(job.id)
    assert (job.webhook, job.status) == (None, JobStatus.CANCELLED)
    assert await redis.zcard("dualprocess:jobs:webhooks") == 0


async def test_silent_names_keep_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    looked_up: list[str] = []

    def silent(host: str, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        answer.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr(addresses, "_RESOLVE_SECONDS", 0.1)
    policy = AddressPolicy()
    asking = [policy.addresses(f"{number}.example", 443, scheme="https") for number in range(50)]
    try:
        for refused in await asyncio.gather(*asking, return_exceptions=True):
            assert "could not be looked up within 0.1 s" in str(refused)
        # The pool that reads files and decodes pictures has far fewer threads.
        assert await asyncio.wait_for(asyncio.to_thread(str), 20) == ""
        assert looked_up
    finally:
        answer.set()


async def test_a_batch_looks_a_name_up_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> list[Any]:
        looked_up.append(host)
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    spec = SPEC | {"webhook": {"url": "https://nowhere.example/"}}
    answer = await api.http.post("/v1/batches", json={"specs": [spec] * 5})
    assert answer.status_code == 422
    fields = [error["field"] for error in answer.json()["errors"]]
    assert fields == [f"specs.{number}.webhook.url" for number in range(5)]
    assert looked_up == ["nowhere.example"]
