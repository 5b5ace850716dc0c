"""Several generators and VLMs of one preset on one machine, as `dualprocess up` starts them; and a
backup of what they do."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from redis import Redis

from dualprocess import Client
from dualprocess.schemas import Job
from services.common.redis_address import OWN_ADDRESS
from tests.e2e.conftest import red_circle
from tests.e2e.stack import Stack, running

pytestmark = pytest.mark.long

#: This machine has none; that they are named is all that a process must see.
CARDS = {"services.generator": {"4", "5"}, "services.vlm": {"6", "7"}}
FLAGS = ("--generator=tiny-flux:2", "--vlm=tiny-idefics2:2", "--gpus=4-7", "--slots=1")


def card(process: psutil.Process) -> str:
    return str(process.environ()["CUDA_VISIBLE_DEVICES"])


def served(process: psutil.Process) -> int:
    """What it computed, in ticks of its processor."""
    return int(process.cpu_times().user * 100)


@pytest.mark.timeout(600)
def test_jobs_spread_over_all_of_them_and_each_stays_on_its_card(tmp_path: Path) -> None:
    with running(tmp_path, *FLAGS) as stack, Client(stack.url) as client:
        for module, expected in CARDS.items():
            assert {card(process) for process in stack.children(module)} == expected
        for name in ("generator-1", "generator-2", "vlm-1", "vlm-2", "worker-1", "worker-2"):
            assert (tmp_path / "logs" / f"{name}.log").is_file(), name
        before = {process: served(process) for process in stack.children("services.vlm")}

        jobs = [client.submit(red_circle(seed=seed)) for seed in (1, 2)]
        ended = [client.wait(job.id) for job in jobs]
        assert [job.status for job in ended] == ["succeeded", "succeeded"]
        for job in ended:
            took = [job.id in stack.log(f"worker-{number}") for number in (1, 2)]
            assert sum(took) == 1, "one each"
        busy = [served(process) - was for process, was in before.items()]
        assert min(busy) > 0.2 * max(busy), "both VLMs answered"

        first = next(one for one in stack.children("services.generator") if card(one) == "4")
        first.kill()
        end = time.monotonic() + 120
        while len(stack.children("services.generator")) < 2 or first.is_running():
            assert time.monotonic() < end
            time.sleep(0.2)
        again = stack.children("services.generator")
        assert {card(process) for process in again} == CARDS["services.generator"]
        assert first.pid not in {process.pid for process in again}
        lost_and_restored(stack, client, ended[0], tmp_path / "backup")


def lost_and_restored(stack: Stack, client: Client, done: Job, backup: Path) -> None:
    """All that Redis and the store have is lost while jobs run and wait, and comes back."""
    files = sha256s(client, done)
    learning = [
        client.submit(red_circle(steps=16, seed=seed, checkpoint_every=4)) for seed in range(5)
    ]
    end = time.monotonic() + 60
    while not any((client.job(job.id).checkpoint or 0) >= 4 for job in learning):
        assert time.monotonic() < end
        time.sleep(0.1)
    said = command("backup", backup, stack)
    assert "queued" in said
    assert "running" in said

    with Redis.from_url((stack.data / OWN_ADDRESS).read_text()) as redis:
        redis.flushdb()
    shutil.rmtree(stack.data / "artifacts" / "jobs")
    assert list(client.jobs()) == []
    command("restore", backup, stack)

    assert sha256s(client, client.job(done.id)) == files
    for job in learning:
        ended = client.wait(job.id)
        assert (ended.status, ended.step, ended.attempt) == ("succeeded", 16, 1)
        assert sha256s(client, ended).keys() == files.keys()


def sha256s(client: Client, job: Job) -> dict[str, str]:
    """Of each of its files, as it is downloaded."""
    return {
        artifact.name: hashlib.sha256(client.read_artifact(job.id, artifact.name)).hexdigest()
        for artifact in job.artifacts
    }


def command(name: str, folder: Path, stack: Stack) -> str:
    program = str(Path(sys.executable).with_name("dualprocess"))
    done = subprocess.run(
        [program, name, str(folder), "--data", str(stack.data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
