"""``python -m tests.fuzz --examples 10000 --seconds 60``: the long versions, as tables.

``--examples`` malformed gRPC calls, then ``--seconds`` of the REST API without keys and as many
with them. Exits with 1 if there was an answer that must not be.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import rest, wire
from tests.fuzz.services import running
from tests.fuzz.world import peopled
from tests.redis_server import RedisServer

#: Faults of one kind are printed once, and at most this many kinds.
_TOLD = 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="malformed gRPC calls")
    parser.add_argument("--seconds", type=int, default=60, help="REST, without keys and with")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.examples:
            faults += attack_services(Path(folder), chosen.examples, chosen.seed)
        if chosen.seconds:
            faults += attack_api(Path(folder), chosen.seconds, chosen.seed)
    for fault, times in faults.most_common(_TOLD):
        print(f"\n{times} × {fault}")
    sys.exit(1 if faults else 0)


def attack_services(folder: Path, examples: int, seed: int) -> Counter[str]:
    faults: Counter[str] = Counter()
    with running(folder) as (generator, vlm):
        targets = [*wire.vlm_targets(), *wire.generator_targets(generator.target, vlm.target)]
        for target in targets:
            service = vlm if target.service == "vlm" else generator
            begin = time.monotonic()
            findings = wire.fuzz(
                service.target, target, examples=-(-examples // len(targets)), random_seed=seed
            )
            faults.update(findings.faults)
            alive = service.is_alive and service.serves
            if not alive:
                faults[f"{service.name} is dead:\n{service.log.read_text()[-2000:]}"] += 1
                break
            print(
                f"{target.path:35} {findings.statuses.total():6} calls "
                f"{time.monotonic() - begin:6.0f} s {len(findings.faults):4} faults "
                f"{service.mebibytes:6.0f} MiB  {_table(findings.statuses)}",
                flush=True,
            )
    return faults


def attack_api(folder: Path, seconds: int, seed: int) -> Counter[str]:
    faults: Counter[str] = Counter()
    server = RedisServer(folder)
    server.start()
    try:
        with peopled(server.url, folder) as world:
            for auth in (False, True):
                findings = rest.fuzz(world, auth=auth, examples=500, seconds=seconds, seed=seed)
                faults += findings.faults
                print(f"\nREST {'with' if auth else 'without'} keys: {findings.requests} requests")
                for operation, answers in sorted(findings.answers.items()):
                    print(f"{operation:45} {_table(Counter(map(str, answers.elements())))}")
    finally:
        server.stop()
    return faults


def _table(counter: Counter[str]) -> str:
    return "  ".join(f"{name} {count}" for name, count in sorted(counter.items()))


if __name__ == "__main__":
    main()
