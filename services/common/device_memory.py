"""How much of a device's memory is taken, asked whenever metrics are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_STATM = Path("/proc/self/statm")


def show_device_memory(device: torch.device) -> None:
    """From now on the process's metrics tell it."""
    REGISTRY.register(DeviceMemory(device))


class DeviceMemory(Collector):
    """Of CUDA what this process took of the device, with what torch keeps for later apart; of the
    CPU what this process took of the machine, which is both."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def collect(self) -> Iterator[GaugeMetricFamily]:
        read = self._of_cuda if self._device.type == "cuda" else _of_machine
        told = read()
        for name, help_text in (
            ("used", "Memory of the device that tensors of this process take."),
            ("reserved", "Memory of the device that this process keeps, used or not."),
            ("total", "Memory that the device has."),
        ):
            if name in told:
                family = GaugeMetricFamily(
                    f"dualprocess_device_memory_{name}_bytes", help_text, labels=["device"]
                )
                family.add_metric([str(self._device)], told[name])
                yield family

    def _of_cuda(self) -> dict[str, int]:
        return {
            "used": torch.cuda.memory_allocated(self._device),
            "reserved": torch.cuda.memory_reserved(self._device),
            "total": torch.cuda.get_device_properties(self._device).total_memory,
        }


def _of_machine() -> dict[str, int]:
    page = os.sysconf("SC_PAGE_SIZE")
    told = {"total": page * os.sysconf("SC_PHYS_PAGES")}
    if _STATM.exists():
        told["used"] = page * int(_STATM.read_text(encoding="ascii").split()[1])
        told["reserved"] = told["used"]
    return told
