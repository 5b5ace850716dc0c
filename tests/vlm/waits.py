"""How often the host waits for the device, counted without one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from services.vlm.families.base import VlmFamily

META = torch.device("meta")


def on_meta(vlm: VlmFamily) -> VlmFamily:
    """The VLM on the meta device, where nothing has a value: whatever reads one there raises."""
    vlm.model.to(META)
    vlm.device = META
    return vlm


class Waits:
    """Takes the meta device for one whose work is queued. ``count``: copies from it, which give
    zeros, and copies to it that don't queue up."""

    def __init__(self) -> None:
        self.count = 0
        self._modes = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._modes.enter_context(_Copies(self))
        self._modes.enter_context(_NewTensors(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._modes.close()


class _Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, waits: Waits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waits = waits

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if func is torch.ops.aten._to_copy.default and "device" in kwargs:
            (source,) = tensors
            target = torch.device(kwargs["device"])
            if source.device == META != target:
                self._waits.count += 1
                return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            is_upload = source.device != target == META
            self._waits.count += is_upload and not kwargs.get("non_blocking")
        # An index on the host, say.
        elif len({one.device.type for one in tensors if one.ndim}) > 1:
            self._waits.count += 1
        return func(*args, **kwargs)


class _NewTensors(TorchFunctionMode):
    """Their copies are out of sight of the mode above."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            self._waits.count += made.device == META
        return made
