"""Work that comes again, and constants that are sent once."""

from __future__ import annotations

import pytest
import torch

from services.common.replay import RECORDED_AT, Replays
from services.common.transfer import Kept, upload

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_on_the_cpu_work_runs_as_it_is_each_time() -> None:
    replays: Replays[str] = Replays(CPU)
    times = 0

    def work(x: torch.Tensor) -> tuple[list[torch.Tensor], str]:
        nonlocal times
        times += 1
        return [2 * x], "doubled"

    for value in range(2 * RECORDED_AT):
        (result,), said = replays("double", work, torch.tensor(float(value)))
        assert (result.item(), said) == (2 * value, "doubled")
    assert times == 2 * RECORDED_AT


def test_constants_are_sent_once_and_given_again_in_their_order() -> None:
    kept = Kept()
    with kept.used():
        first, second = upload(torch.tensor(1), CPU), upload(torch.tensor(2), CPU)
    with kept.used():
        again = upload(torch.tensor(3), CPU), upload(torch.tensor(4), CPU)
    assert again[0] is first
    assert again[1] is second
    assert upload(torch.tensor(5), CPU).item() == 5, "outside everything is sent"


@pytest.mark.gpu
@needs_gpu
def test_a_recording_gives_what_the_work_gives() -> None:
    device = torch.device("cuda")
    replays: Replays[None] = Replays(device)
    weight = torch.randn(64, 64, device=device)

    def work(x: torch.Tensor) -> tuple[list[torch.Tensor], None]:
        leaf = x.detach().requires_grad_()
        (leaf @ weight + upload(torch.ones(64), device)).square().sum().backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return [leaf.grad], None

    for key in ("one", "two"):
        for _ in range(2 * RECORDED_AT):
            x = torch.randn(8, 64, device=device)
            (result,), _ = replays(key, work, x)
            torch.testing.assert_close(result, work(x)[0][0])
    replays.clear()
    (result,), _ = replays("one", work, x)
    torch.testing.assert_close(result, work(x)[0][0])


@pytest.mark.gpu
@needs_gpu
def test_work_that_waits_for_the_host_runs_as_it_is() -> None:
    replays: Replays[None] = Replays(torch.device("cuda"))

    def work(x: torch.Tensor) -> tuple[list[torch.Tensor], None]:
        return [x * x.sum().item()], None

    for _ in range(2 * RECORDED_AT):
        x = torch.randn(8, device="cuda")
        torch.testing.assert_close(replays("waits", work, x)[0][0], work(x)[0][0])
