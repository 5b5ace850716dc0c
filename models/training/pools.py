"""Pictures that nobody painted, for the VLM to learn from: decoded, sampled, learnt by LoRAs.

`models.training.collect` draws them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from models.training.checkpoint import RUNS
from models.training.world import Bools, Floats, Ints, Scenes, clear


@dataclass(frozen=True)
class Pool:
    """Images with what they show. Where `one_shape` is false nothing about the shape holds."""

    images: NDArray[np.uint8]  # (N, 64, 64, 3)
    classes: Ints  # (N, 8)
    horizon: Floats  # (N,) pixels from the top
    palette: NDArray[np.uint8]  # (N, 3, 3) sky, shape, ground
    one_shape: Bools  # (N,)
    clear: Bools  # (N, 8) attributes that may be asked for

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
    return Pool(
        images=images,
        classes=scenes.classes,
        horizon=scenes.horizon,
        palette=palette,
        one_shape=np.ones(len(images), np.bool_),
        clear=clear(
            scenes.radius,
            scenes.center_x,
            scenes.center_y,
            scenes.thickness,
            colors[:, [0, 2]].mean(axis=(1, 2)),
            scenes.horizon,
        ),
    )


def load_pools() -> list[Pool]:
    """All pools in runs/."""
    pools = []
    for path in sorted(RUNS.glob("pool-*.npz")):
        with np.load(path) as data:
            pools.append(Pool(*(data[field.name] for field in fields(Pool))))
    return pools
