"""Prometheus for tests: its tool, and a server that scrapes what a list names."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from services.local.ports import free_port

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool on the PATH")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus on the PATH")
_SECONDS = 30.0


def promtool(*arguments: str, fed: str = "") -> str:
    """What it says against what it is given; empty where that is nothing."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=fed, capture_output=True, encoding="utf-8", cwd=MONITORING
    )
    return done.stderr + (done.stdout if done.returncode else "")


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that the expression gives now."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", (expression, answer)
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def until(self, expression: str) -> list[dict[str, Any]]:
        """The same, once it gives any."""
        end = time.monotonic() + _SECONDS
        while not (samples := self.query(expression)):
            if time.monotonic() > end:
                pytest.fail(f"after {_SECONDS:g} s there is nothing for {expression}")
            time.sleep(0.2)
        return samples

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}/api/v1/{path}").json()["data"]


@contextlib.contextmanager
def scraping(targets: Path, folder: Path) -> Iterator[Prometheus]:
    """A server with the configuration and rules of ``deploy/monitoring``, but in a hurry."""
    assert PROMETHEUS is not None
    configured = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    configured["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configured["rule_files"] = [str(MONITORING / name) for name in configured["rule_files"]]
    (job,) = configured["scrape_configs"]
    job["file_sd_configs"] = [{"files": [str(targets)]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configured), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={folder / 'db'}", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server = Prometheus(f"http://{address}")
        _wait_until_ready(server, process, folder / "prometheus.log")
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _wait_until_ready(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/-/ready").is_success:
                return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"Prometheus did not start:\n{log.read_text(encoding='utf-8')}")
        time.sleep(0.1)
