"""The denoiser's repeated blocks, compiled: once for all blocks of a class, and for every job.

The compiled code takes weights and LoRAs as inputs, so the next job compiles nothing, if its
images have the same size and its LoRA the same rank and modules. The first steps of a new kind take
minutes; torch keeps what it compiled in TORCHINDUCTOR_CACHE_DIR for the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

#: Kinds of blocks that the model's class in diffusers doesn't name itself.
_MORE_BLOCKS = ("SanaTransformerBlock",)
#: A class of blocks is compiled for each shape of its inputs, with LoRA and without, with gradient
#: and without. What comes after so many runs as it is.
_MOST_VARIANTS = 64


def compile_blocks(denoiser: Any, backend: str | Callable[..., Any] = "inductor") -> None:
    """From now on the blocks run compiled. They are compiled when they first run.

    What computes a block again in its backward pass is to be put around it after this, not before:
    within a compiled block torch decides itself what is kept.
    """
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, _MOST_VARIANTS)
    names = {*denoiser._repeated_blocks, *_MORE_BLOCKS}
    compiled: dict[type[torch.nn.Module], Callable[..., Any]] = {}
    for block in denoiser.modules():
        kind = type(block)
        if kind.__name__ in names:
            if kind not in compiled:
                compiled[kind] = torch.compile(kind.forward, backend=backend, dynamic=False)
            block.__dict__["forward"] = MethodType(compiled[kind], block)
