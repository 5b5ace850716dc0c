"""Lists the NVIDIA GPUs of this machine. Asks the driver, without torch."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

#: Comes with the driver; containers with GPUs have it, too.
_PROGRAM = "nvidia-smi"
_FIELDS = "index,uuid,name,memory.total,memory.free,driver_version"
_SECONDS = 30


@dataclass(frozen=True)
class Gpu:
    """``index`` is its number in the order of PCI buses: that of `CUDA_VISIBLE_DEVICES` if
    `CUDA_DEVICE_ORDER` is `PCI_BUS_ID`. Memory is in MiB."""

    index: str
    uuid: str
    name: str
    total_mib: int
    free_mib: int
    driver: str

    def is_called(self, name: str) -> bool:
        """``name`` is its number or the beginning of its UUID; CUDA takes both."""
        return name == self.index or (name.startswith("GPU-") and self.uuid.startswith(name))


@dataclass(frozen=True)
class Gpus:
    """``found`` in the order of their numbers; ``fault`` says why there are none."""

    found: Sequence[Gpu]
    fault: str = ""

    @cached_property
    def driver(self) -> str:
        return self.found[0].driver if self.found else ""

    def called(self, name: str) -> Gpu | None:
        return next((gpu for gpu in self.found if gpu.is_called(name)), None)


def look() -> Gpus:
    """Asks the driver; never raises."""
    program = shutil.which(_PROGRAM)
    if program is None:
        return Gpus([], f"{_PROGRAM}, which comes with NVIDIA's driver, is not on the PATH")
    try:
        done = subprocess.run(  # noqa: S603
            [program, f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpus([], f"{program} can't be run ({type(error).__name__})")
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        return Gpus([], f"{program} says: {said.partition(chr(10))[0] or 'nothing'}")
    found = [
        _gpu(row) for row in csv.reader(done.stdout.splitlines(), skipinitialspace=True) if row
    ]
    return Gpus(found, "" if found else f"{program} lists none")


def _gpu(row: Sequence[str]) -> Gpu:
    index, uuid, name, total, free, driver = row
    return Gpu(index, uuid, name, _mib(total), _mib(free), driver)


def _mib(told: str) -> int:
    """0 if the driver does not say, as for GPUs that share the machine's memory."""
    return int(told) if told.isdecimal() else 0
