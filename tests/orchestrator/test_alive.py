"""The file by which a cluster sees that a worker's loop runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.orchestrator.worker import alive
from tests.orchestrator.conftest import LONGEST_WAIT, Site
from tests.redis_server import RedisServer


async def test_a_worker_touches_its_file_again_and_again_even_without_redis(
    site: Site, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "EVERY_SECONDS", 0.05)
    file = tmp_path / "alive"

    async def touched() -> None:
        file.unlink(missing_ok=True)
        async with asyncio.timeout(LONGEST_WAIT):
            while not file.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    site.start_worker(alive_file=file)
    await touched()
    await touched()
    with redis_server.frozen():
        await touched()


def test_a_file_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    assert alive.touch_fault(tmp_path / "alive") is None
    fault = alive.touch_fault(tmp_path / "none" / "alive")
    assert fault is not None
    assert fault.startswith("can't be written (No such file or directory); name a file")
