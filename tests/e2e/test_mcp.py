"""The tools for agents, called by the SDK's own client over both transports."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import httpx2
import pytest
from mcp import Client as Agent
from mcp import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent
from typer.testing import CliRunner

from services.local.ports import free_port
from services.orchestrator.keys import app as keys_app
from tests.e2e.stack import Stack, running

DOCS = Path(__file__).parents[2] / "docs"
PNG = b"\x89PNG\r\n\x1a\n"
QUESTIONS = [{"question": "Is the circle red?", "answer": "Yes"}]
PAIR = {"generator": "tiny-flux", "vlm": "tiny-idefics2"}
JOB = {"prompt": "a circle", "questions": QUESTIONS, **PAIR}
SHORT = {"optimizer": {"steps": 4}, "eval": {"images": 1, "every": 0}}
COMMAND = [sys.executable, "-c", "from dualprocess.cli import app; app()", "mcp"]

Told: TypeAlias = list[tuple[float, float | None, str | None]]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that asks for keys."""
    with running(tmp_path_factory.mktemp("guarded"), "--auth") as stack:
        yield stack


def key_of(stack: Stack, *flags: str) -> str:
    flags = (*("--scope", "submit", "--scope", "read"), *flags)
    made = CliRunner().invoke(
        keys_app, [f"--data={stack.data}", "create", "--name", "an agent's", *flags]
    )
    assert made.exit_code == 0, made.output
    return next(word for word in made.output.split() if word.startswith("dp_"))


@dataclass(frozen=True)
class Keys:
    anna: str
    #: With a quota of two steps for each job.
    ben: str
    admin: str


@pytest.fixture(scope="module")
def keys(guarded: Stack) -> Keys:
    return Keys(
        anna=key_of(guarded),
        ben=key_of(guarded, "--steps", "2"),
        admin=key_of(guarded, "--scope", "admin"),
    )


@pytest.fixture(scope="module")
def over_http(keys: Keys, guarded: Stack) -> Iterator[str]:
    """The tools' address. Its process has a key of its own, which it must not use."""
    port = free_port()
    command = [*COMMAND, "--http", f"--port={port}", f"--url={guarded.url}"]
    environment = os.environ | {"DUALPROCESS_API_KEY": keys.admin}
    with subprocess.Popen(command, env=environment) as process:
        try:
            _until_it_answers(process, port)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.terminate()


def _until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        try:
            httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("the tools were not served")


def stdio(stack: Stack, key: str) -> Agent:
    flags = [f"--url={stack.url}", "--api-key", key]
    return Agent(StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], *flags]))


@asynccontextmanager
async def with_key(address: str, key: str | None) -> AsyncIterator[Agent]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
        Agent(streamable_http_client(address, http_client=http)) as agent,
    ):
        yield agent


def fields(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    told: dict[str, Any] = result.structured_content
    return told


def pictures(result: CallToolResult) -> list[bytes]:
    return [
        base64.b64decode(part.data) for part in result.content if isinstance(part, ImageContent)
    ]


def refusal(result: CallToolResult) -> str:
    assert result.is_error
    (said,) = result.content
    assert isinstance(said, TextContent)
    return said.text


async def taught(agent: Agent) -> None:
    """A whole job by tools alone."""
    assert {tool.name for tool in (await agent.list_tools()).tools} == {
        *("models", "jobs", "teach", "follow", "stop", "draw", "score", "ask")
    }
    dry = fields(await agent.call_tool("teach", {**JOB, "settings": SHORT, "dry_run": True}))
    assert (dry["jobs"], dry["spec"]["optimizer"]["steps"]) == (1, 4)
    job = fields(await agent.call_tool("teach", {**JOB, "settings": SHORT}))["id"]

    told: Told = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    ended = await agent.call_tool("follow", {"job": job, "seconds": 120}, progress_callback=heard)
    about = fields(ended)
    assert (about["status"], about["step"]) == ("succeeded", 4)
    assert about["scores"]["lora"]["probability"]["geometric_mean"] > 0
    assert {"pytorch_lora_weights.safetensors"} <= {file["name"] for file in about["files"]}
    (samples,) = pictures(ended)
    assert samples.startswith(PNG)
    steps = [message for _, _, message in told if message and message.startswith("step ")]
    assert len(steps) == 4
    assert "probability of the right answers" in steps[0]
    numbers = [progress for progress, _, _ in told]
    assert numbers == sorted(set(numbers))
    assert (told[-1][0] >= 4, told[-1][1]) == (True, 4)

    use = {"prompt": "a circle", "generator": "tiny-flux", "loras": [{"job": job}]}
    drawn = await agent.call_tool("draw", {**use, "seeds": [3, 4]})
    assert [picture.startswith(PNG) for picture in pictures(drawn)] == [True, True]
    scored = {**JOB, "seeds": [3], "loras": [{"job": job}]}
    score = fields(await agent.call_tool("score", scored))["scores"]
    assert 0 < (score.get("lora") or score["base"])["probability"]["geometric_mean"] < 1

    asked = {"questions": ["Is the circle red?"], "vlm": "tiny-idefics2"}
    from_file = {**asked, "job": fields(drawn)["id"], "file": "image-3.png"}
    sent = {**asked, "image": base64.b64encode(pictures(drawn)[0]).decode()}
    answers = [fields(await agent.call_tool("ask", one))["answers"] for one in (from_file, sent)]
    assert answers[0] == answers[1]
    assert answers[0][0]


async def test_an_agent_teaches_over_http_with_its_own_key(keys: Keys, over_http: str) -> None:
    async with with_key(over_http, keys.anna) as agent:
        await taught(agent)


async def test_following_ends_in_time_and_a_job_can_be_stopped(guarded: Stack, keys: Keys) -> None:
    long = {"optimizer": {"steps": 900}, "eval": {"images": 1, "every": 1}}
    async with stdio(guarded, keys.anna) as agent:
        job = fields(await agent.call_tool("teach", {**JOB, "settings": long}))["id"]
        running_still = await agent.call_tool("follow", {"job": job, "seconds": 4})
        assert fields(running_still)["status"] in ("queued", "running")
        await agent.call_tool("stop", {"job": job})
        ended = fields(await agent.call_tool("follow", {"job": job, "seconds": 60}))
        assert ended["status"] == "cancelled"
        listed = fields(await agent.call_tool("jobs", {"status": "cancelled"}))["jobs"]
        assert job in [one["id"] for one in listed]


async def test_what_the_service_refuses_is_the_tools_error_in_its_words(
    guarded: Stack, keys: Keys
) -> None:
    async with stdio(guarded, keys.anna) as agent:
        said = refusal(await agent.call_tool("teach", {**JOB, "generator": "tiny-flax"}))
        assert "tiny-flux" in said
        wrong = {**JOB, "settings": {"optimizer": {"stepz": 3}}}
        assert "optimizer.stepz" in refusal(await agent.call_tool("teach", wrong))
        nobody = refusal(await agent.call_tool("follow", {"job": "0" * 26}))
        assert "There is no job" in nobody
        neither = {"questions": ["What?"], "vlm": "tiny-idefics2"}
        assert "image" in refusal(await agent.call_tool("ask", neither))


def test_the_documented_program_teaches(guarded: Stack, keys: Keys) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "mcp.md").read_text(), re.DOTALL)
    started = 'command="dualprocess", args=["mcp"]'
    assert started in program
    flags = [*COMMAND[1:], f"--url={guarded.url}", "--api-key", keys.anna]
    program = program.replace(started, f"command={COMMAND[0]!r}, args={flags!r}")
    short = f'"settings": {SHORT!r}, "prompt"'
    ran = subprocess.run(
        [sys.executable, "-c", program.replace('"prompt"', short)], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "step 4 of 4: loss " in ran.stdout
    assert "geometric_mean" in ran.stdout


async def test_each_request_over_http_has_the_rights_of_its_key_only(
    keys: Keys, over_http: str
) -> None:
    async with with_key(over_http, None) as stranger:
        assert "key" in refusal(await stranger.call_tool("models", {}))
    async with with_key(over_http, keys.anna) as one:
        job = fields(await one.call_tool("teach", {**JOB, "settings": SHORT}))["id"]
    async with with_key(over_http, keys.ben) as other:
        assert "There is no job" in refusal(await other.call_tool("stop", {"job": job}))
        assert fields(await other.call_tool("jobs", {}))["jobs"] == []
        over = refusal(await other.call_tool("teach", {**JOB, "settings": SHORT}))
        assert "quota steps of this key is 2" in over


def test_only_the_tools_import_the_sdk() -> None:
    code = "import sys, dualprocess, dualprocess.cli; print('mcp' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert told == "False\n"
