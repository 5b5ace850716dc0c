"""Pictures that nobody painted, for the VLM to learn from: decoded, sampled, learnt by LoRAs.

`models.training.collect` draws them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from models.training.checkpoint import RUNS
from models.training.world import Floats, Ints, Scenes


@dataclass(frozen=True)
class Pool:
    """Images with what they show. Where `one_shape` is false nothing about the shape holds."""

    images: NDArray[np.uint8]  # (N, 64, 64, 3)
    classes: Ints  # (N, 8)
    horizon: Floats  # (N,) pixels from the top
    palette: NDArray[np.uint8]  # (N, 3, 3) sky, shape, ground
    one_shape: NDArray[np.bool_]  # (N,)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: Ints) -> Pool:
        return Pool(*(getattr(self, field.name)[which] for field in fields(self)))

    def save(self, name: str) -> None:
        """Writes runs/pool-<name>.npz."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez_compressed(RUNS / f"pool-{name}.npz", **columns)


def pool_of(images: NDArray[np.uint8], scenes: Scenes) -> Pool:
    """Images (N, 64, 64, 3) that show these scenes."""
    colors = np.stack([scenes.sky, scenes.fill, scenes.ground], axis=1)
    palette = np.clip(colors * 255 + 0.5, 0, 254).astype(np.uint8)
    whole = np.ones(len(images), np.bool_)
    return Pool(images, scenes.classes, scenes.horizon, palette, whole)


def load_pools() -> list[Pool]:
    """All pools in runs/."""
    pools = []
    for path in sorted(RUNS.glob("pool-*.npz")):
        with np.load(path) as data:
            pools.append(Pool(*(data[field.name] for field in fields(Pool))))
    return pools
