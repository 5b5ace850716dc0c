"""A cheap test that a device still computes correctly, for the start and after a fault."""

from __future__ import annotations

from collections.abc import Callable

import torch

#: The side of the matrices that are multiplied.
_SIDE = 256
#: How much two results of the model may differ, relative to their size: a GPU may round differently
#: in each run.
_TOLERANCE = 0.05


class SelfTestFailed(RuntimeError):
    """The device computed something wrong."""


class SelfTest:
    """Computes a product whose result is known, and ``probe``: a small computation of the loaded
    model, which is always the same. Later results are compared with the first one.

    Call it on the device's thread. Raises ``SelfTestFailed``, or what the device raises.
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
        # The numbers are whole and so small that products and sums are exact in every dtype.
        left = torch.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) % 5 - 2
        right = torch.arange(_SIDE * _SIDE).reshape(_SIDE, _SIDE) % 7 - 3
        wanted = left @ right
        product = left.float().to(self._device) @ right.float().to(self._device)
        if not torch.equal(product.cpu(), wanted.float()):
            raise SelfTestFailed("a product of two matrices of whole numbers is wrong")
