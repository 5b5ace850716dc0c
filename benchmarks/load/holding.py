"""Starts and stops the process of the simulated workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.load.holders import Done
from services.orchestrator.store.queue import Claim

LEASE_MS = 30_000


class Holding:
    """The simulated workers' process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def stop(self) -> Done:
        """Stops them, and returns what they did. Raises ``RuntimeError`` if they died before."""
        if self._process.returncode is not None:
            raise RuntimeError(f"the simulated workers ended with {self._process.returncode}")
        self._process.terminate()
        said, _ = await self._process.communicate()
        return Done(**json.loads(said))


@contextlib.asynccontextmanager
async def holding(redis_url: str, leases: Sequence[Claim], folder: Path) -> AsyncIterator[Holding]:
    """Simulated workers of these claims, while they work."""
    claims = folder / "claims.json"
    claims.write_text(
        json.dumps([[claim.job_id, claim.token] for claim in leases]), encoding="utf-8"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.load.holders",
        f"--redis-url={redis_url}",
        f"--claims={claims}",
        f"--lease-seconds={LEASE_MS / 1000:g}",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        await process.stdout.readline()
        yield Holding(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
