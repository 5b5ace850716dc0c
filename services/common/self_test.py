"""Whether a device still computes what it should: cheap, at the start and after a fault."""

from __future__ import annotations

from collections.abc import Callable

import torch

#: Of the product's matrices.
_SIDE = 256
#: How far the model's results may lie apart, of their size: two runs on a GPU may round otherwise.
_TOLERANCE = 0.05


class SelfTestFailed(RuntimeError):
    """The device gave a wrong answer."""


class SelfTest:
    """A product whose result is known, and ``probe``: a small computation of the model that is
    loaded, always the same, whose first result is what later ones are compared with.

    To be called on the device's thread. Raises ``SelfTestFailed``, or what the device raises.
    """

    def __init__(self, device: torch.device, probe: Callable[[], torch.Tensor]) -> None:
        self._device = device
        self._probe = probe
        self._first: torch.Tensor | None = None

    def __call__(self) -> None:
        self._multiply()
        found = self._probe().detach().float().cpu()
        if not found.isfinite().all():
            raise SelfTestFailed("the model's answer to a fixed input is not finite")
        if self._first is None:
            self._first = found
        apart = (found - self._first).abs().mean()
        if apart > _TOLERANCE * self._first.abs().mean():
            raise SelfTestFailed(
                f"the model's answer to a fixed input is {float(apart):.3g} away from its first one"
            )

    def _multiply(self) -> None:
        # Whole numbers so small that every dtype of the hardware holds products and sums exactly.
        left = torch.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) % 5 - 2
        right = torch.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) % 7 - 3
        wanted = left @ right
        product = left.float().to(self._device) @ right.float().to(self._device)
        if not torch.equal(product.cpu(), wanted.float()):
            raise SelfTestFailed("a product of two matrices of whole numbers is wrong")
