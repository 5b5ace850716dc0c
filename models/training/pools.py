"""Pictures with what they show, as numbers. The numbers come from drawn scenes, or are measured
from the pixels of other pictures (`models.training.collect`: decoded, sampled, learnt by LoRAs).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.training import chances
from models.training.checkpoint import RUNS
from models.training.world import Bools, Floats, Ints, Scenes


@dataclass(frozen=True)
class Pool:
    """N pictures. Where `one_shape` is false they are not of this world, and the other fields mean
    nothing."""

    images: NDArray[np.uint8]  # (N, 64, 64, 3)
    kind: Ints  # (N,) index into ATTRIBUTES["shape"]
    fill: Floats  # (N, 3)
    radius: Floats  # (N,)
    center_x: Floats  # (N,)
    center_y: Floats  # (N,)
    thickness: Floats  # (N,)
    sky: Floats  # (N, 3)
    ground: Floats  # (N, 3)
    horizon: Floats  # (N,) pixels from the top
    one_shape: Bools  # (N,)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: Ints) -> Pool:
        return Pool(*(getattr(self, field.name)[which] for field in fields(self)))

    @cached_property
    def chances(self) -> list[Floats]:
        """For each attribute (N, values): how likely it is each value."""
        return chances.of_scene(
            kind=self.kind,
            fill=self.fill,
            radius=self.radius,
            center_x=self.center_x,
            center_y=self.center_y,
            thickness=self.thickness,
            sky=self.sky,
            ground=self.ground,
            horizon=self.horizon,
        )

    @property
    def natural(self) -> NDArray[np.floating]:
        """(N,): how much sky and ground are of this world."""
        return chances.naturalness(self.sky, self.ground)

    @property
    def classes(self) -> Ints:
        """(N, 8): the likeliest value of each attribute."""
        return np.stack([of_each.argmax(axis=1) for of_each in self.chances], axis=1)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(N, 3, 3): sky, shape, ground; never pure white."""
        colors = np.stack([self.sky, self.fill, self.ground], axis=1)
        return np.asarray(np.clip(colors * 255 + 0.5, 0, 254), np.uint8)

    def save(self, name: str) -> None:
        """Writes runs/pool-<name>.npz, complete or not at all."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        partial = RUNS / f"{name}.partial.npz"
        np.savez_compressed(partial, **columns)
        partial.replace(RUNS / f"pool-{name}.npz")


def pool_of(images: NDArray[np.uint8], scenes: Scenes) -> Pool:
    """Images (N, 64, 64, 3) that show these scenes."""
    return Pool(
        images=images,
        kind=scenes.kind,
        fill=scenes.fill,
        radius=scenes.radius,
        center_x=scenes.center_x,
        center_y=scenes.center_y,
        thickness=scenes.thickness,
        sky=scenes.sky,
        ground=scenes.ground,
        horizon=scenes.horizon,
        one_shape=np.ones(len(images), np.bool_),
    )


def load_pools() -> list[Pool]:
    """All pools in runs/."""
    pools = []
    for path in sorted(RUNS.glob("pool-*.npz")):
        with np.load(path) as data:
            pools.append(Pool(*(data[field.name] for field in fields(Pool))))
    return pools
