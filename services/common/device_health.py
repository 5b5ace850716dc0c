"""Whether the device of a service still works."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

import torch

from services.common.device import DeviceThread
from services.common.errors import DeviceFault, OutOfDeviceMemory, StartError
from services.common.self_test import SelfTest

log = logging.getLogger(__name__)

#: After this many calls in a row that failed for unknown reasons, the device is taken to be broken.
MOST_FAILED = 3


def identity(devices: Sequence[torch.device], port: int) -> str:
    """A name that is the same after a restart, and that no other devices have: GPUs' own numbers,
    or else the address of the service."""
    if devices[0].type == "cuda":
        uuids = (torch.cuda.get_device_properties(device).uuid for device in devices)
        return "+".join(f"GPU-{uuid}" for uuid in uuids)
    return f"{devices[0].type} of {socket.gethostname()}:{port}"


class DeviceHealth:
    """``sick`` is set, and never unset, when the device is found to be broken; ``fault`` says why.
    ``probe`` is a small computation of the model on it. It is always the same, and its result is
    finite."""

    def __init__(self, device: DeviceThread, name: str, probe: Callable[[], torch.Tensor]) -> None:
        self.name = name
        self.sick = asyncio.Event()
        self.fault = ""
        self._device = device
        self._self_test = SelfTest(device.device, probe)
        self._failed_in_a_row = 0

    async def begin(self) -> None:
        """The first self-test. Raises ``StartError``."""
        try:
            await self._device.run(self._self_test)
        except Exception as error:
            raise StartError(
                f"the device {self.name} failed its self-test: {_told(error)}; look at its "
                "driver's log, or choose another --device"
            ) from error

    def answered(self) -> None:
        """Notes that a call ended well."""
        self._failed_in_a_row = 0

    async def failed(self, error: Exception) -> None:
        """Finds out whether a call that failed for an unknown reason was the device's fault."""
        if self.sick.is_set():
            return
        self._failed_in_a_row += 1
        if isinstance(error, DeviceFault):
            self._fall_sick(str(error))
        elif self._failed_in_a_row >= MOST_FAILED:
            self._fall_sick(
                f"{self._failed_in_a_row} calls in a row failed, the last: {_told(error)}"
            )
        else:
            why = _told(error)
            try:
                await self._device.run(self._self_test)
            except OutOfDeviceMemory as full:
                log.warning("no self-test after a failed call: %s", full)
            except Exception as wrong:
                self._fall_sick(f"a call failed ({why}), and then the self-test: {_told(wrong)}")
            else:
                log.warning("the device passed its self-test after a failed call")

    def _fall_sick(self, fault: str) -> None:
        if not self.sick.is_set():
            self.fault = f"device fault of {self.name}: {fault}"
            log.error("%s", self.fault)
            self.sick.set()


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
