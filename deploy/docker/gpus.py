"""``python deploy/docker/gpus.py [FOLDER]``: writes gpus-2.yml, gpus-4.yml and gpus-8.yml, beside
this file or into FOLDER. Three quarters of the GPUs run generators, the others VLMs, one GPU for
each process.

The first generator, VLM and worker are docker-compose.yml's own; the others are copies of them.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

CARDS = (2, 4, 8)
HERE = Path(__file__).resolve().parent
BASE = HERE.parents[1] / "docker-compose.yml"

_HEAD = """\
# Used with docker-compose.yml: {generators} and {vlms}, one GPU for each.
# Written by deploy/docker/gpus.py. NVIDIA's driver 580 or newer and its container toolkit must be
# on the machine: the images' torch is built for CUDA 13.0. With an older driver the container does
# not start, and says so.
"""
_GPU = {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility", "NVIDIA_REQUIRE_CUDA": "cuda>=13.0"}


def written(cards: int) -> str:
    """The file for so many cards."""
    vlms = max(1, cards // 4)
    generators = cards - vlms
    base = yaml.safe_load(BASE.read_text(encoding="utf-8"))["services"]
    services: dict[str, Any] = {}
    for number in range(generators):
        service = _copied(base, "generator", number)
        services[_name("generator", number)] = _with_card(service, number)
    for number in range(vlms):
        service = _copied(base, "vlm", number)
        if number:
            # All VLMs have one name: workers find all addresses behind it.
            service["networks"] = {"default": {"aliases": ["vlm"]}}
        services[_name("vlm", number)] = _with_card(service, generators + number)
    for number in range(1, generators):
        service = _copied(base, "worker", number)
        generator = _name("generator", number)
        service["environment"]["DUALPROCESS_GENERATOR"] = f"{generator}:50051"
        service["depends_on"][generator] = service["depends_on"].pop("generator")
        services[_name("worker", number)] = service
    head = _HEAD.format(generators=_count(generators, "generator"), vlms=_count(vlms, "VLM"))
    return head + yaml.dump({"services": services}, Dumper=_Plain, sort_keys=False, width=120)


class _Plain(yaml.SafeDumper):
    """Each service is written out: no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _name(service: str, number: int) -> str:
    return service if number == 0 else f"{service}-{number + 1}"


def _copied(base: dict[str, Any], service: str, number: int) -> dict[str, Any]:
    """Empty for the first, which this file only adds to."""
    return copy.deepcopy(base[service]) if number else {}


def _with_card(service: dict[str, Any], card: int) -> dict[str, Any]:
    device = {"driver": "nvidia", "device_ids": [str(card)], "capabilities": ["gpu"]}
    service["environment"] = service.get("environment", {}) | _GPU
    service["mem_limit"] = "${MODEL_MEMORY:-64g}"
    service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return service


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for cards in CARDS:
        (folder / f"gpus-{cards}.yml").write_text(written(cards), encoding="utf-8")
