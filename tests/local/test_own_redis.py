"""The Redis of a stack accepts programs that can read the data folder, and no other local one."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from typer.testing import CliRunner, Result

from services.common.redis_address import OWN_ADDRESS, redis_refusal
from services.local import own_redis
from services.local.own_redis import OwnRedis
from services.local.supervisor import Supervisor
from services.orchestrator.keys import app as keys_app

COMMAND = str(Path(sys.executable).with_name("dualprocess"))


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[Path]:
    """The data folder of a stack whose Redis runs, under a umask that lets everyone read."""
    before = os.umask(0)
    try:
        own = own_redis.build(tmp_path / OWN_ADDRESS.parent)
        supervisor = Supervisor([own.spec], tmp_path / "logs", lambda name, line: None)
        await supervisor.start()
    finally:
        os.umask(before)
    with Redis.from_url(own.url) as client:
        client.set("written", "1")
    yield tmp_path
    await supervisor.stop()


def address(data: Path) -> str:
    return (data / OWN_ADDRESS).read_text()


async def test_it_asks_for_the_password_of_this_start(data: Path) -> None:
    url = address(data)
    parts = urlsplit(url)
    for other in (
        f"redis://{parts.hostname}:{parts.port}/0",
        url.replace(f"{parts.password}", "x"),
    ):
        with Redis.from_url(other) as client, pytest.raises(AuthenticationError):
            client.keys()
        assert redis_refusal(other)
    assert redis_refusal(url) is None
    again = own_redis.build(data / "another")
    assert urlsplit(again.url).password != parts.password


async def test_nothing_that_others_can_read_has_the_password(data: Path) -> None:
    password = urlsplit(address(data)).password
    assert password
    (redis,) = (child for child in psutil.Process().children() if "redis" in child.name())
    assert not any(password in part for part in redis.cmdline())
    for path in data.rglob("*"):  # noqa: ASYNC240
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path} {mode:o}"
        assert path.is_dir() or path.parent.name != "logs" or password not in path.read_text()
    assert password not in repr(own_redis.build(data / "another"))


async def test_an_address_that_everyone_could_read_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("of an earlier version")
    (tmp_path / "url").chmod(0o644)
    with (tmp_path / "url").open() as opened_before:
        own: OwnRedis = own_redis.build(tmp_path)
        assert opened_before.read() == "of an earlier version"
    assert (tmp_path / "url").read_text() == own.url
    assert stat.S_IMODE((tmp_path / "url").stat().st_mode) == 0o600


def keys(*arguments: str, **environment: str) -> Result:
    """What `dualprocess keys` becomes."""
    outside = {name: None for name in os.environ if "REDIS_URL" in name}
    return CliRunner(env={**outside, **environment}).invoke(keys_app, list(arguments))


async def test_keys_are_made_in_the_stack_whose_folder_is_named(
    data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = await asyncio.to_thread(
        subprocess.run,
        [COMMAND, "keys", "create", "--name=me", "--scope=read", "--json", f"--data={data}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    made_id = json.loads(made.stdout)["id"]

    elsewhere = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    for arguments, environment in (
        ([f"--data={data}", "list", "--json"], elsewhere),
        (["list", "--json"], {"DUALPROCESS_DATA": str(data)}),
    ):
        listed = await asyncio.to_thread(keys, *arguments, **environment)
        assert made_id in listed.stdout
    nobody = tmp_path_factory.mktemp("nobody")
    refused = await asyncio.to_thread(keys, f"--data={nobody}", "list")
    assert refused.exit_code == 2
    assert f"no stack with a Redis of its own runs in {nobody}" in refused.stderr
    assert f"dualprocess up --data {nobody}" in refused.stderr


def test_keys_without_a_stack_say_how_to_name_one(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / OWN_ADDRESS).write_text("redis://:old@127.0.0.1:1/0")
    gone = keys(f"--data={tmp_path}", "list")
    assert gone.exit_code == 3
    assert f"start it with `dualprocess up --data {tmp_path}`" in gone.stderr
    assert "old" not in gone.stderr
    for page in (keys("--help"), keys("list", "--help")):
        told = " ".join(page.output.replace("│", " ").split())
        assert "dualprocess keys --data DIR" in told


async def test_a_keys_name_is_listed_without_what_a_terminal_obeys(data: Path) -> None:
    name = "\x1b]0;x\x07me\x9b2J\x7f\u202e\u200b"
    at = f"--data={data}"
    made = await asyncio.to_thread(keys, at, "create", f"--name={name}", "--scope=read")
    assert made.exit_code == 0, made.stderr
    for arguments in (
        ["list"],
        ["list", "--json"],
        ["revoke", name],
        ["revoke", "nobody", f"--{name}"],
        [name],
    ):
        done = await asyncio.to_thread(keys, at, *arguments)
        assert all(letter.isprintable() or letter == "\n" for letter in done.output), arguments
        if arguments == ["list"]:
            assert "]0;xme2J" in done.output
        if "--json" in arguments:
            (listed,) = json.loads(done.output)
            assert listed["name"] == name
