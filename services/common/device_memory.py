"""How much of a device's memory is taken, asked whenever metrics are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_STATM = Path("/proc/self/statm")


def show_device_memory(devices: Sequence[torch.device]) -> None:
    """From now on the process's metrics tell it of each device."""
    REGISTRY.register(DeviceMemory(devices))


class DeviceMemory(Collector):
    """Of CUDA what this process took of each device, with what torch keeps for later apart; of the
    CPU what this process took of the machine, which is both."""

    def __init__(self, devices: Sequence[torch.device]) -> None:
        # The CPU may be named more than once.
        self._devices = list(dict.fromkeys(devices))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        told = {
            str(device): _of_cuda(device) if device.type == "cuda" else _of_machine()
            for device in self._devices
        }
        for name, help_text in (
            ("used", "Memory of the device that tensors of this process take."),
            ("reserved", "Memory of the device that this process keeps, used or not."),
            ("total", "Memory that the device has."),
        ):
            family = GaugeMetricFamily(
                f"dualprocess_device_memory_{name}_bytes", help_text, labels=["device"]
            )
            for device, sizes in told.items():
                if name in sizes:
                    family.add_metric([device], sizes[name])
            if family.samples:
                yield family


def _of_cuda(device: torch.device) -> dict[str, int]:
    return {
        "used": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "total": torch.cuda.get_device_properties(device).total_memory,
    }


def _of_machine() -> dict[str, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    told = {"total": page * os.sysconf("SC_PHYS_PAGES")}
    if _STATM.exists():
        told["used"] = page * int(_STATM.read_text(encoding="ascii").split()[1])
        told["reserved"] = told["used"]
    return told
