"""Counts what runs on a device: live bytes with their peak, FLOPs, kernel launches, bytes moved."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten

#: Operations without a kernel: they name memory, or make it without writing to it.
_FREE = frozenset(
    """
    view _unsafe_view reshape t transpose permute expand unsqueeze squeeze slice select split
    split_with_sizes chunk unbind detach alias as_strided _reshape_alias unfold narrow is_same_size
    lift_fresh view_as_real view_as_complex squeeze_ unsqueeze_ t_ detach_ diagonal empty
    empty_like empty_strided new_empty new_empty_strided _local_scalar_dense equal sym_size
    sym_numel real movedim device
    """.split()  # noqa: SIM905
)
_INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu)
def _attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:  # noqa: ARG001
    return int(sdpa_flop_count(q, k, v))  # type: ignore[no-untyped-call]


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _attention_backward(
    grad: Any,
    q: Any,
    k: Any,
    v: Any,
    *_: Any,
    out_shape: Any = None,  # noqa: ARG001
    **__: Any,
) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))  # type: ignore[no-untyped-call]


@dataclass
class Count:
    """What one phase did. ``peak`` is the most bytes that were live in it; ``moved`` are the bytes
    that its kernels read and wrote."""

    flops: int = 0
    launches: int = 0
    moved: int = 0
    peak: int = 0


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, counts every operation under the ``phase`` that is set.

    ``live`` are the bytes of all storages that were made since, and still exist; a storage counts
    once, whatever views there are of it. Reading a fake number gives 1 and is counted in
    ``reads``: it is where a device would be waited for.
    """

    def __init__(self, phase: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = phase
        self.counts: dict[str, Count] = defaultdict(Count)
        self.live = 0
        self.reads = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """What is there already, as weights are, is not counted."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = 0

    @property
    def peak(self) -> int:
        return max((count.peak for count in self.counts.values()), default=0)

    @property
    def flops(self) -> int:
        return sum(count.flops for count in self.counts.values())

    @property
    def launches(self) -> int:
        return sum(count.launches for count in self.counts.values())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = _kind(func)
        if kind.reads and isinstance(args[0], FakeTensor):
            self.reads += 1
            return _number(args[0].dtype)
        if kind.indexes:
            args = (args[0], _numbered(args[1]), *args[2:])
        out = func(*args, **kwargs)
        count = self.counts[self.phase]
        given = _tensors(kwargs.values(), _tensors(args, []))
        made = _tensors((out,), [])
        for tensor in made:
            self._track(tensor.untyped_storage(), given)
        count.peak = max(count.peak, self.live)
        if kind.free:
            return out
        touched = [*made, *given]
        if any(isinstance(tensor, FakeTensor) for tensor in touched):
            count.launches += 1
            count.moved += sum(tensor.numel() * tensor.element_size() for tensor in touched)
            if kind.flops is not None:
                count.flops += int(kind.flops(*args, **kwargs, out_val=out))
        return out

    def _track(self, storage: Any, given: Iterable[torch.Tensor]) -> None:
        if storage in self._known:
            return
        # A view of what was there before is not new.
        is_new = all(tensor.untyped_storage() is not storage for tensor in given)
        size = storage.nbytes() if is_new else 0
        self._known[storage] = size
        self.live += size
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.live -= size


@dataclass(frozen=True)
class _Kind:
    """What there is to do for an operation besides running it."""

    free: bool
    reads: bool
    indexes: bool
    flops: Callable[..., int] | None


@cache
def _kind(func: Any) -> _Kind:
    packet = func._overloadpacket
    return _Kind(
        free=func._schema.name.partition("::")[2] in _FREE,
        reads=func is aten._local_scalar_dense.default,
        indexes=packet in _INDEXING,
        flops=flop_registry.get(packet),
    )


def _tensors(values: Iterable[Any], found: list[torch.Tensor]) -> list[torch.Tensor]:
    """``found``, and the tensors among ``values`` and in their lists."""
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _tensors(value, found)
    return found


def _number(dtype: torch.dtype) -> bool | int | float:
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


def _numbered(indices: Any) -> list[Any]:
    """A real mask says how many entries it selects; a fake tensor can be indexed only by their
    numbers."""
    found: list[Any] = []
    for index in indices:
        is_mask = isinstance(index, torch.Tensor) and index.dtype == torch.bool
        if is_mask and not isinstance(index, FakeTensor):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


class _Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, reached: Callable[[], None]) -> torch.Tensor:
        ctx.reached = reached
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.reached()
        return gradients[0], None


def marked(x: torch.Tensor, reached: Callable[[], None]) -> torch.Tensor:
    """``x``; calls ``reached`` once the backward pass gets there."""
    marked_x: torch.Tensor = _Mark.apply(x, reached)  # type: ignore[no-untyped-call]
    return marked_x
