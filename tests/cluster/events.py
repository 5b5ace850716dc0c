"""What happens to the hosts while jobs run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.chaos.stack import LEASE_SECONDS
from tests.cluster.site import Site

#: The API that comes in the place of the first one.
API, NEXT_API = "api1", "api2"
#: Of a host that is cut off, and for how long: within a lease, and past it.
_CUTS: Sequence[tuple[str, float]] = (
    ("generator1", 1.6 * LEASE_SECONDS),
    ("vlm1", 5.0),
    ("redis", 0.5 * LEASE_SECONDS),
    ("redis", 1.6 * LEASE_SECONDS),
    ("s3", 5.0),
    (API, 3.0),
    ("generator2", 0.5 * LEASE_SECONDS),
)
_BRIEF_CUTS = (("generator1", 1.6 * LEASE_SECONDS), ("redis", 2.0), ("s3", 2.0))
_GAP_SECONDS = 2.0


async def happen(site: Site, *, brief: bool) -> int:
    """All of it, one thing after the other; how many things that were."""
    cuts = _BRIEF_CUTS if brief else _CUTS
    for name, seconds in cuts:
        _tell(f"{name} is cut off for {seconds:g} s")
        async with site.cut_off(name):
            await asyncio.sleep(seconds)
        await asyncio.sleep(_GAP_SECONDS)
    _tell(f"{API} is lost for good, {NEXT_API} takes its place")
    await site.lose(API)
    url = await site.start_api(NEXT_API, in_place_of=API)
    _tell("generator2 is lost for good, with its worker, and generator3 joins")
    await site.lose("generator2")
    await site.start_generator("generator3", url)
    if brief:
        return len(cuts) + 4
    _tell("vlm2 is lost for good")
    await site.lose("vlm2")
    return len(cuts) + 5


def _tell(what: str) -> None:
    print(f"  {what}", flush=True)
