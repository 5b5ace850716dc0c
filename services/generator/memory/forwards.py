"""Another forward pass for one module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch.nn import Module


def replace(module: Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """From now on the module runs ``forward(its own forward, *args)``. The function that is
    returned undoes it."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = partial(forward, module.forward)

    def undo() -> None:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before

    return undo


@contextlib.contextmanager
def instead(module: Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The same, as long as the block runs."""
    undo = replace(module, forward)
    try:
        yield
    finally:
        undo()
