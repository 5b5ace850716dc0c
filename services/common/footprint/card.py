"""What a card has for tensors, and what a process needs of it besides them."""

from __future__ import annotations

GIB = 2**30
#: Usual sizes of cards, in GiB.
CARDS = (16, 24, 48, 80)

# Measured on an H200 with torch 2.11 and CUDA 13 (benchmarks/results/gpu.json): with these figures
# what is computed of fourteen models and settings is within 6 % of ``max_memory_reserved``.
#: Of a process with CUDA: its context, and the kernels that it has loaded.
CONTEXT = 880 * 2**20
#: Memory that cuBLAS and cuDNN keep or take for a moment, and blocks of torch's allocator that are
#: in use in part.
WORKSPACE = 768 * 2**20
#: Torch's allocator keeps more than tensors take: it rounds up, and leaves gaps.
SLACK = 1.02
#: The part of a card that processes can have; the driver keeps the rest.
USABLE = 0.98


def reserved(peak: int) -> int:
    """What torch reserves for tensors of ``peak`` bytes, as ``max_memory_reserved`` tells it."""
    return int(peak * SLACK) + WORKSPACE


def needed(peak: int) -> int:
    """What a process takes of a card."""
    return reserved(peak) + CONTEXT


def usable(gib: float) -> int:
    """What processes can have of a card of this size."""
    return int(gib * GIB * USABLE)
