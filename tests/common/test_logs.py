"""What a service logs: texts of others, and about which job."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest

from dualprocess.v1 import vlm_pb2, vlm_pb2_grpc
from services.common.channels import open_channel
from services.common.credentials import OPEN
from services.common.device import DeviceThread
from services.common.server import bind
from services.common.telemetry import configure_logging
from services.common.trail import Trail, following

_CODE = r"""
import logging
from services.common.telemetry import configure_logging

configure_logging("api", "info")
name = "\x1b]0;title\x07a\x9b2Jb\u202ec\n2026-01-01 00:00:00,000 INFO    api forged: no\rline"
logging.getLogger("jobs").info("job %s", name)
try:
    raise ValueError(name)
except ValueError:
    logging.getLogger("jobs").exception("no %s", name)
"""


def test_a_log_has_nothing_that_a_terminal_obeys_and_no_forged_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CODE], capture_output=True, encoding="utf-8", check=True
    )
    assert all(letter.isprintable() or letter == "\n" for letter in done.stderr)
    first, second, *traceback = done.stderr.splitlines()
    assert first.endswith(
        "jobs: job ]0;titlea2Jbc 2026-01-01 00:00:00,000 INFO    api forged: no line"
    )
    assert second.startswith(first[:4])
    assert traceback[0] == "Traceback (most recent call last):"


_JSON = r"""
import logging
from services.common import trail
from services.common.telemetry import configure_logging

configure_logging("vlm", "info", "json")
trail.begin(trail.Trail("0" * 26, "asked-1"))
logging.getLogger("jobs").info("%s", "\x1b]0;title\x07a\x9b2J\u202e\n{\"level\": \"forged\"}\x7f")
try:
    raise ValueError("broken\x1b")
except ValueError:
    logging.getLogger("jobs").exception("no")
"""


def test_as_json_each_line_is_an_object_that_no_text_breaks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _JSON], capture_output=True, encoding="utf-8", check=True
    )
    assert all(letter.isprintable() or letter == "\n" for letter in done.stderr)
    first, second = map(json.loads, done.stderr.splitlines())
    about = {"service": "vlm", "logger": "jobs", "job": "0" * 26, "request": "asked-1"}
    assert about.items() <= first.items()
    assert about.items() <= second.items()
    assert first["message"].endswith('\n{"level": "forged"}\x7f')
    assert (first["level"], second["level"]) == ("info", "error")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert "ValueError: broken\x1b" in second["exception"]


class _Logging(vlm_pb2_grpc.VlmServicer):
    """Says something on the event loop, and on the thread of a device."""

    def __init__(self, device: DeviceThread) -> None:
        self._device = device

    async def Describe(self, request: Any, context: Any) -> vlm_pb2.VlmDescribeResponse:
        log = logging.getLogger("vlm")
        log.info("on the loop")
        await self._device.run(log.info, "on the device")
        return vlm_pb2.VlmDescribeResponse()


async def test_a_call_says_which_job_and_request_it_is_for_and_the_service_logs_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    device = DeviceThread("cpu")
    server, port = bind("127.0.0.1:0", OPEN)
    servicer = _Logging(device)  # type: ignore[abstract]  # nothing else is called
    vlm_pb2_grpc.add_VlmServicer_to_server(servicer, server)
    await server.start()
    handlers = logging.root.handlers[:]
    configure_logging("vlm", "info")
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            stub = vlm_pb2_grpc.VlmStub(channel)
            with following(Trail("0" * 26, "asked-1")):
                await stub.Describe(vlm_pb2.VlmDescribeRequest(), timeout=10)
            # One that says nothing, and one whose words could forge a line.
            await stub.Describe(vlm_pb2.VlmDescribeRequest(), timeout=10)
            with following(Trail("a circle is red", "dp_0123_secret")):
                await stub.Describe(vlm_pb2.VlmDescribeRequest(), timeout=10)
    finally:
        logging.root.handlers[:] = handlers
        await server.stop(None)
        device.close()
    said = [line for line in capsys.readouterr().err.splitlines() if " vlm vlm: " in line]
    assert [line.partition(" vlm vlm: ")[2] for line in said] == [
        f"on the loop [job={'0' * 26} request=asked-1]",
        f"on the device [job={'0' * 26} request=asked-1]",
        *["on the loop", "on the device"] * 2,
    ]
