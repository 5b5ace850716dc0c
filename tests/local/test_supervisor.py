"""Child processes are restarted, given up, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from services.local.child import ChildSpec
from services.local.supervisor import GaveUp, Supervisor
from tests.local.children import sleeper


def silent(name: str, line: str) -> None:
    """Nobody listens."""


def pid(folder: Path, name: str) -> int:
    return int((folder / name).read_text())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def running(number: int) -> bool:
    return psutil.pid_exists(number) and psutil.Process(number).status() != "zombie"


async def test_a_child_that_dies_starts_again(tmp_path: Path) -> None:
    supervisor = Supervisor([sleeper("one", tmp_path)], tmp_path / "logs", silent, first_pause=0.01)
    await supervisor.start()
    first = pid(tmp_path, "one")
    psutil.Process(first).kill()
    await until(lambda: pid(tmp_path, "one") != first)
    second = pid(tmp_path, "one")
    assert running(second)
    await supervisor.stop()
    assert not running(second)


async def test_after_five_quick_deaths_it_says_which_and_why(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    starts = tmp_path / "starts"
    code = f"print('no room on the GPU'); open({str(starts)!r}, 'a').write('x'); exit(3)"
    broken = ChildSpec("vlm", [sys.executable, "-c", code], never)
    supervisor = Supervisor(
        [sleeper("one", tmp_path), broken], tmp_path / "logs", silent, first_pause=0.01
    )
    with pytest.raises(
        GaveUp, match=r"(?s)vlm died .* exit status 3, 5 times in a row.*no room on the GPU"
    ):
        await supervisor.start()
    assert starts.read_text() == "xxxxx"
    assert not running(pid(tmp_path, "one"))
    assert (tmp_path / "logs" / "vlm.log").read_text().count("no room") == 5


async def test_slow_deaths_before_it_was_ever_ready_count_too(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    code = "import time; time.sleep(0.1); exit(3)"
    broken = ChildSpec("vlm", [sys.executable, "-c", code], never)
    supervisor = Supervisor(
        [broken], tmp_path / "logs", silent, quick_seconds=0.05, first_pause=0.01
    )
    with pytest.raises(GaveUp, match=r"vlm died .* exit status 3, 5 times in a row"):
        await supervisor.start()


async def test_a_progress_bar_that_ends_no_line_ends_no_stack(tmp_path: Path) -> None:
    done = tmp_path / "done"
    code = (
        "import sys,time\n"
        "for i in range(2000): sys.stdout.write('\\r%4d of 2000 ' % i + '#' * 90)\n"
        f"print(); print('loaded'); open({str(done)!r}, 'w').close(); time.sleep(99)"
    )

    async def ready() -> bool:
        return done.exists()

    told: list[str] = []
    bar = ChildSpec("vlm", [sys.executable, "-c", code], ready)
    supervisor = Supervisor([bar], tmp_path / "logs", lambda name, line: told.append(line))
    await supervisor.start()
    await until(lambda: told and told[-1] == "loaded")
    assert told[-2].startswith("1999 of 2000")
    assert len(told) < 100, "not each of its states"
    assert (tmp_path / "logs" / "vlm.log").read_bytes().count(b"\r") == 2000
    await supervisor.stop()


async def test_what_a_child_writes_is_told_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    code = r"print('\x1b]0;x\x07\x1b[2Ja job \x9b1m\u202enamed so'); exit(3)"
    told: list[str] = []
    child = ChildSpec("vlm", [sys.executable, "-X", "utf8", "-c", code], never)
    supervisor = Supervisor(
        [child], tmp_path / "logs", lambda name, line: told.append(line), first_pause=0.01
    )
    with pytest.raises(GaveUp) as given_up:
        await supervisor.start()
    assert set(told) == {"]0;x[2Ja job 1mnamed so"}
    assert all(letter.isprintable() or letter == "\n" for letter in str(given_up.value))


async def test_who_ignores_a_stop_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "stubborn"
    code = (
        "import os,signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"open({str(mark)!r},'w').write(str(os.getpid())); time.sleep(99)"
    )

    async def ready() -> bool:
        return mark.exists() and bool(mark.read_text())

    supervisor = Supervisor(
        [ChildSpec("stubborn", [sys.executable, "-c", code], ready)],
        tmp_path / "logs",
        silent,
        grace_seconds=0.2,
    )
    await supervisor.start()
    await supervisor.stop()
    assert not running(pid(tmp_path, "stubborn"))


def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.local.children", str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    children = [pid(tmp_path, name) for name in ("one", "two")]
    assert all(map(running, children))
    process.kill()
    process.communicate()
    end = time.monotonic() + 5
    while any(map(running, children)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(running, children))


async def test_a_start_says_what_it_waits_for_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def never() -> bool:
        return False

    code = "import time; print('asking a proxy', flush=True); time.sleep(99)"
    silence = ChildSpec(
        "api",
        [sys.executable, "-c", code],
        never,
        waits_for="an answer from http://127.0.0.1:1/readyz",
        ready_seconds=1.5,
    )
    supervisor = Supervisor(
        [sleeper("one", tmp_path), silence], tmp_path / "logs", silent, tell_seconds=0.3
    )
    caplog.set_level("INFO")
    with pytest.raises(GaveUp, match=r"(?s)api was not ready after \d+ s.*/readyz.*asking a proxy"):
        await supervisor.start()
    told = [line for line in caplog.messages if "api: waiting for an answer from http://" in line]
    assert len(told) > 1
    assert not running(pid(tmp_path, "one"))
