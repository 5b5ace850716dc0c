"""Several devices on a machine that has none, where each knows what lies on it.

The devices `cpu:0`, `cpu:1`, … stand for cards; plain `cpu` is the host. The CPU computes for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

_TO = torch.ops.aten._to_copy.default
_COPY = torch.ops.aten.copy_.default
_INDEX = torch.ops.aten.index.Tensor
#: The host needs values to go on.
_READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.nonzero.default,
)


def card(number: int) -> torch.device:
    return torch.device("cpu", number)


class OnCard(torch.Tensor):
    """``held`` is what the CPU computes with."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls: type[Self], held: torch.Tensor, device: torch.device) -> Self:
        made: Self = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=device,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise AssertionError(f"{func} of a tensor on a card, outside of `with Cards()`")

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"{self.held!r} on {self.device}"


class Cards(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises for what takes tensors of several devices.

    ``moves`` counts copies between cards by their shape and way. ``waits`` counts how often the
    host waits: for copies and values from a card, and for copies to one that don't queue up.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moves: Counter[tuple[torch.Size, torch.device, torch.device]] = Counter()
        self.waits = 0
        self._new_tensors = _NewTensors()

    def __enter__(self) -> Self:
        # A module that moves gets other parameters: those that it has know of no device.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._new_tensors.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._new_tensors.__exit__(*error)  # type: ignore[no-untyped-call]
        torch.__future__.set_overwrite_module_params_on_conversion(False)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        cards = {one.device for one in tensors if isinstance(one, OnCard)}
        is_placed = kwargs.get("device") is not None
        target = torch.device(kwargs["device"]) if is_placed else None
        if not cards and (target is None or target.index is None):
            return func(*args, **kwargs)
        if func is _COPY:
            self._count(tensors[1], tensors[0].device, kwargs)
        elif func is _TO and target is not None:
            self._count(tensors[0], target, kwargs)
        elif func is _INDEX and tensors[0].device in cards and len(cards) == 1:
            # An index on the host is sent.
            self.waits += any(not isinstance(one, OnCard) for one in tensors)
        elif len({one.device for one in tensors if one.ndim}) > 1:
            raise AssertionError(f"{func} takes tensors of {sorted(map(str, cards))} and others")
        self.waits += func in _READS
        if target is None:
            (target,) = cards if func is not _COPY else {tensors[0].device}
        else:
            kwargs["device"] = "cpu"
        held_args, held_kwargs = tree_map(_held, (args, kwargs))
        made = func(*held_args, **held_kwargs)
        if target.index is not None:
            made = tree_map(
                lambda one: OnCard(one, target) if isinstance(one, torch.Tensor) else one, made
            )
        return return_and_correct_aliasing(func, args, kwargs, made)  # type: ignore[no-untyped-call]

    def _count(
        self, source: torch.Tensor, target: torch.device, options: Mapping[str, Any]
    ) -> None:
        if source.device == target:
            return
        if not isinstance(source, OnCard):
            self.waits += not options.get("non_blocking")
        elif target.index is None:
            self.waits += 1
        else:
            self.moves[source.shape, source.device, target] += 1


class _NewTensors(TorchFunctionMode):
    """Their way to a device is out of sight of the mode above."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not torch.tensor:
            return func(*args, **kwargs)
        values = tree_map(lambda one: one.tolist() if isinstance(one, OnCard) else one, args)
        device = kwargs.pop("device", None)
        return torch.tensor(*values, **kwargs).to(device)


def _held(one: Any) -> Any:
    return one.held if isinstance(one, OnCard) else one
