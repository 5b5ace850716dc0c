"""A model on several devices: the text model's layers in runs of neighbours, one on each.

Vision tower, embeddings and head lie on the first device. Hidden states go on to the next device
where a run ends, and autograd brings their gradients back. What the layers share, masks and rotary
embeddings, goes to each device once a pass.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from services.common.errors import StartError
from services.common.footprint.spread import run_ends

log = logging.getLogger(__name__)


def spread(model: Any, text: Any, devices: Sequence[torch.device]) -> None:
    """Moves ``model`` to ``devices``, so that the weights of the fullest one take as little as they
    can; ``text`` is the decoder within it. No device ever holds the whole model. From now on it is
    called as before, with tensors on the first device.

    ``text`` itself, its last norm included, gives its output on the last device; what the head
    takes may be there. Raises ``StartError`` for fewer layers than devices.
    """
    layers, norm = text.layers, text.norm
    if len(layers) < len(devices):
        raise StartError(
            f"--device names {len(devices)} devices, and the model has {len(layers)} layers; name "
            "fewer"
        )
    sizes = [_bytes(layer) for layer in layers]
    ends = run_ends(sizes, _bytes(model) - sum(sizes), len(devices))
    first, last = devices[0], devices[-1]
    text.layers, text.norm = torch.nn.ModuleList(), torch.nn.Identity()
    model.to(first)
    text.layers, text.norm = layers, norm.to(last)
    moves = _Moves()
    layers[-1].register_forward_hook(moves.forget)
    for device, (begin, end) in zip(devices, pairwise([0, *ends]), strict=True):
        for layer in layers[begin:end]:
            layer.to(device)
            _brings_its_input(layer, device, moves)
        log.info("layers %d to %d of %d are on %s", begin + 1, end, len(layers), device)
    _brings_its_input(model.lm_head, first, moves)
    log.info("calls are not recorded, since a recording has one device")


class _Moves:
    """What the layers of one pass share, once on each device."""

    def __init__(self) -> None:
        self._moved: dict[tuple[int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}

    def forget(self, *_: object) -> None:
        self._moved.clear()

    def to(self, device: torch.device, value: Any) -> Any:
        """``value`` with its tensors on ``device``."""
        if isinstance(value, tuple):
            return tuple(self.to(device, one) for one in value)
        if not isinstance(value, torch.Tensor) or value.device == device:
            return value
        key = id(value), device
        if key not in self._moved:
            # The original is kept, so that nothing else gets its id.
            self._moved[key] = value, value.to(device)
        return self._moved[key][1]


def _brings_its_input(module: torch.nn.Module, device: torch.device, moves: _Moves) -> None:
    def bring(
        _: torch.nn.Module, hidden: tuple[torch.Tensor, ...], shared: dict[str, Any]
    ) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        moved = {name: moves.to(device, value) for name, value in shared.items()}
        return tuple(one.to(device) for one in hidden), moved

    module.register_forward_pre_hook(bring, with_kwargs=True)


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in module.parameters())
