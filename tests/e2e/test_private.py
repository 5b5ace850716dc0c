"""A running stack leaves nothing open to other users of its machine."""

from __future__ import annotations

import stat
from urllib.parse import urlsplit

import psutil
from typer.testing import CliRunner

from dualprocess import Client
from services.common.redis_address import OWN_ADDRESS, redis_refusal
from services.orchestrator.keys import app as keys_app
from tests.e2e.conftest import red_circle
from tests.e2e.stack import Stack


def test_nobody_else_reads_what_it_keeps_or_its_redis(stack: Stack, client: Client) -> None:
    client.wait(client.submit(red_circle(steps=1)).id)
    url = (stack.data / OWN_ADDRESS).read_text()
    parts = urlsplit(url)
    assert parts.password
    assert redis_refusal(url) is None
    assert redis_refusal(f"redis://127.0.0.1:{parts.port}/0")
    listed = CliRunner().invoke(keys_app, [f"--data={stack.data}", "list"])
    assert listed.exit_code == 0, listed.output

    # The test's own file is older than the stack.
    files = [path for path in stack.data.rglob("*") if path.name != "up.log"]
    assert {"lock", "redis.conf", "api.log", "samples.png"} <= {path.name for path in files}
    for path in (stack.data, *files):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} {mode:o}"
        if path.name not in (OWN_ADDRESS.name, "redis.conf") and path.is_file():
            assert parts.password.encode() not in path.read_bytes(), path
    processes = [stack.supervisor, *stack.supervisor.children(recursive=True)]
    assert len(processes) >= 6
    for process in processes:
        assert parts.password not in " ".join(psutil.Process(process.pid).cmdline())
