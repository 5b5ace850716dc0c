"""Several generators and VLMs of one preset on one machine, as `dualprocess up` starts them."""

from __future__ import annotations

import time
from pathlib import Path

import psutil

from dualprocess import Client
from tests.e2e.conftest import red_circle
from tests.e2e.stack import running

#: This machine has none; that they are named is all that a process must see.
CARDS = {"services.generator": {"4", "5"}, "services.vlm": {"6", "7"}}
FLAGS = ("--generator=tiny-flux:2", "--vlm=tiny-idefics2:2", "--gpus=4-7")


def card(process: psutil.Process) -> str:
    return str(process.environ()["CUDA_VISIBLE_DEVICES"])


def served(process: psutil.Process) -> int:
    """What it computed, in ticks of its processor."""
    return int(process.cpu_times().user * 100)


def test_jobs_spread_over_all_of_them_and_each_stays_on_its_card(tmp_path: Path) -> None:
    with running(tmp_path, *FLAGS) as stack, Client(stack.url) as client:
        for module, expected in CARDS.items():
            assert {card(process) for process in stack.children(module)} == expected
        for name in ("generator-1", "generator-2", "vlm-1", "vlm-2", "worker-1", "worker-2"):
            assert (tmp_path / "logs" / f"{name}.log").is_file(), name
        before = {process: served(process) for process in stack.children("services.vlm")}

        jobs = [client.submit(red_circle(steps=12, seed=seed)) for seed in (1, 2)]
        ended = [client.wait(job.id) for job in jobs]
        assert [job.status for job in ended] == ["succeeded", "succeeded"]
        for job in ended:
            took = [job.id in stack.log(f"worker-{number}") for number in (1, 2)]
            assert sum(took) == 1, "one each, though either has room for both"
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
        more = [client.submit(red_circle(steps=2, seed=seed)) for seed in (3, 4)]
        assert {client.wait(job.id).status for job in more} == {"succeeded"}
