"""The service over hosts: Redis, S3, API, two of generator with worker, two VLMs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import httpx

from services.local.child import Child, ChildSpec
from services.local.probes import answers, lets_in, serves
from tests.chaos.stack import ATTEMPTS, GENERATOR, LEASE_SECONDS, VLM
from tests.cluster.network import Host, Network
from tests.redis_server import INSTALLED, WHEEL

_BUCKET = "bucket"
#: All of the host's own addresses.
_EVERYWHERE = "0.0.0.0"  # noqa: S104
_READY_SECONDS = 240.0
_POLL_SECONDS = 0.2


class Site:
    """What runs on which host. Nobody starts again what ends."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._network = network
        self._folder = folder
        self._running: dict[str, list[tuple[Child, asyncio.Task[int]]]] = {}
        self._token = {"DUALPROCESS_GRPC_TOKEN": secrets.token_hex(32)}
        self._hosts = {name: network.host(name) for name in ("redis", "s3", "vlm1", "vlm2")}
        self.redis_url = f"redis://{self._hosts['redis'].address}:6379/0"
        store = f"http://{self._hosts['s3'].address}:9000"
        self._bucket = f"{store}/{_BUCKET}"
        self._store = {
            "DUALPROCESS_REDIS_URL": self.redis_url,
            "DUALPROCESS_ARTIFACTS": f"s3://{_BUCKET}/jobs",
            "DUALPROCESS_STORE_SECONDS": "3",
            "AWS_ENDPOINT_URL": store,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "a secret",
            "AWS_REGION": "us-east-1",
        }

    async def start(self) -> None:
        """Redis and S3. Returns when they answer."""
        (self._folder / "redis").mkdir(parents=True)
        await asyncio.gather(self._start_redis(), self._start_s3())

    async def start_vlm(self, name: str) -> None:
        host = self._hosts[name]
        flags = [f"--preset={VLM}", "--device=cpu", f"--host={_EVERYWHERE}", "--port=50052"]
        await self._run(
            host, "services.vlm", flags, self._token, lambda: serves(f"{host.address}:50052")
        )

    async def start_api(self, name: str, *, in_place_of: str = "") -> str:
        """On a new host, with the address of one that is lost or of its own; where it is."""
        host = self._add(name, in_place_of)
        url = f"http://{host.address}:8000"
        flags = [f"--host={_EVERYWHERE}", "--port=8000", "--insecure"]
        await self._run(
            host,
            "services.orchestrator.api",
            flags,
            self._store,
            lambda: answers(f"{url}/readyz"),
        )
        return url

    async def start_generator(self, name: str, api: str) -> None:
        """With its worker, on a host of their own. Returns when the API at ``api`` knows it."""
        host = self._add(name)
        await self._run(
            host,
            "services.generator",
            [f"--preset={GENERATOR}", "--device=cpu", f"--host={_EVERYWHERE}", "--port=50051"],
            self._token,
            lambda: serves(f"{host.address}:50051"),
        )
        vlms = ",".join(f"{self._hosts[vlm].address}:50052" for vlm in ("vlm1", "vlm2"))
        await self._run(
            host,
            "services.orchestrator.worker",
            [
                *("--generator=127.0.0.1:50051", f"--vlms={json.dumps({VLM: f'ipv4:{vlms}'})}"),
                *(f"--attempts={ATTEMPTS}", "--pause-seconds=0.05", f"--name={name}"),
                f"--lease-seconds={LEASE_SECONDS:g}",
            ],
            {**self._store, **self._token},
            lambda: answers(f"{api}/readyz?worker=true"),
        )

    @contextlib.asynccontextmanager
    async def cut_off(self, name: str) -> AsyncIterator[None]:
        """The host can't be reached, and reaches nobody."""
        self._network.unplug(self._hosts[name])
        try:
            yield
        finally:
            self._network.plug(self._hosts[name])

    async def lose(self, name: str) -> None:
        """For good, and without a word to anybody."""
        self._network.unplug(self._hosts[name])
        await self._end(name)

    async def stop(self) -> None:
        for name in list(self._running):
            await self._end(name)

    def _add(self, name: str, in_place_of: str = "") -> Host:
        before = self._hosts.get(in_place_of)
        self._hosts[name] = self._network.host(name, in_place_of=before)
        return self._hosts[name]

    async def _end(self, name: str) -> None:
        for child, task in self._running.pop(name, []):
            child.signal(signal.SIGKILL)
            await task

    async def _start_redis(self) -> None:
        host = self._hosts["redis"]
        words = [INSTALLED or WHEEL, "--bind", _EVERYWHERE, "--protected-mode", "no"]
        words += ["--dir", str(self._folder / "redis"), "--appendonly", "yes", "--save", ""]
        await self._start(host, words, {}, lambda: lets_in(self.redis_url))

    async def _start_s3(self) -> None:
        host = self._hosts["s3"]
        words = [sys.executable, "-m", "moto.server", "-H", _EVERYWHERE, "-p", "9000"]
        await self._start(host, words, {}, lambda: answers(self._bucket.removesuffix(_BUCKET)))
        async with httpx.AsyncClient() as http:
            (await http.put(self._bucket)).raise_for_status()

    async def _run(
        self,
        host: Host,
        module: str,
        flags: list[str],
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]],
    ) -> None:
        await self._start(host, [sys.executable, "-m", module, *flags], environment, ready)

    async def _start(
        self,
        host: Host,
        words: list[str],
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[bool]],
    ) -> None:
        """Returns when it is ready. Raises ``RuntimeError`` for one that ends before."""
        count = len(self._running.setdefault(host.name, []))
        spec = ChildSpec(host.name, host.command(*words), ready, environment)
        child = Child(spec, self._folder / f"{host.name}-{count}.log", lambda name, line: None)
        task = asyncio.create_task(child.run())
        self._running[host.name].append((child, task))
        async with asyncio.timeout(_READY_SECONDS):
            while not await ready():
                if task.done():
                    raise RuntimeError(f"{host.name}: {' '.join(child.tail)}")
                await asyncio.sleep(_POLL_SECONDS)
