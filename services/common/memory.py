"""How a model is kept in its device's memory: what is computed again instead of kept, and in which
numbers the frozen weights are."""

from __future__ import annotations

from typing import Literal, TypeAlias

#: What a step keeps for its backward pass, from the fastest to the smallest: ``fast`` keeps
#: everything; ``decoder`` computes the autoencoder's decoder again; ``blocks`` the blocks of the
#: denoiser; ``lean`` both, and keeps no weights that a job can do without. A VLM has ``fast`` and
#: ``lean``.
MemoryLevel: TypeAlias = Literal["fast", "decoder", "blocks", "lean"]
LEVELS: tuple[MemoryLevel, ...] = ("fast", "decoder", "blocks", "lean")

#: ``auto``: the fastest level that fits the device.
MemoryChoice: TypeAlias = Literal["auto", "fast", "decoder", "blocks", "lean"]

#: Numbers of the frozen weights, smaller than the preset's dtype. Computation stays in that dtype.
Quantization: TypeAlias = Literal["int8", "float8", "nf4"]
