"""Which devices ``--device`` names, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from services.common.errors import StartError


def named(text: str, *, several: bool) -> Sequence[torch.device]:
    """The devices of a text: one of torch's, ``auto`` for CUDA if there is one and else the CPU,
    or, if ``several`` are allowed, some of one type between commas: ``cuda:0,cuda:1``.

    Raises ``StartError`` for a device that this machine has not, and for a list that can't be.
    """
    if "," not in text:
        if text == "auto":
            text = "cuda" if torch.cuda.is_available() else "cpu"
        return [_present(text)]
    if not several:
        raise StartError(
            f"--device {text}: a generator runs on one device, only a VLM on several; name one"
        )
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise StartError(
            f"--device {text}: a device is missing next to a comma; write a list like cuda:0,cuda:1"
        )
    devices = [_numbered(_present(part)) for part in parts]
    if len({device.type for device in devices}) > 1:
        raise StartError(f"--device {text}: name devices of one type, like cuda:0,cuda:1")
    twice = next((one for one in devices if devices.count(one) > 1), None)
    if twice is not None and twice.type != "cpu":
        raise StartError(f"--device {text}: names {twice} twice; name each device once")
    return devices


def _numbered(device: torch.device) -> torch.device:
    """Tensors on ``cuda`` say that they are on ``cuda:0``."""
    is_whole = device.type == "cpu" or device.index is not None
    return device if is_whole else torch.device(device.type, 0)


def _present(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise StartError(
            f"--device {name} is unknown; choose cpu, cuda, cuda:1, … or auto"
        ) from error
    try:
        torch.empty(0, device=device)
    # A torch that was built without CUDA raises AssertionError.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise StartError(
            f"--device {name} is not available: {reason}; choose another, or auto"
        ) from error
    return device
