"""How likely Yes is the right answer to a question about a picture, from the picture's numbers.

Between two classes the probability changes gradually, and far from a class it still says in which
direction that class is. A VLM needs this slope, so that its gradient can teach. Trained only on
clear cases, its gradient would not lead from blue to red.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.training.measure import luminance
from models.training.world import (
    ATTRIBUTES,
    FILL_RGB,
    GROUND_RGB,
    SIDE,
    SKY_RGB,
    Floats,
    Ints,
)

#: The smallest probability of an answer about a picture of this world.
LEAST = 0.0015
#: The probability of Yes for something that isn't there, and for a picture that is not of this
#: world. It is less than for any wrong answer about a good picture; else a LoRA would do better to
#: draw nothing than the wrong thing.
VOID = 0.0003

Numbers = NDArray[np.floating]


def of_scene(
    *,
    kind: Ints,
    fill: Floats,
    radius: Floats,
    center_x: Floats,
    center_y: Floats,
    thickness: Floats,
    sky: Floats,
    ground: Floats,
    horizon: Floats,
) -> list[Floats]:
    """For each attribute (N, values): how likely it is each value. Lengths in pixels.

    If the world does not have such a sky or ground, no answer is fully right.
    """
    high, low = _sigmoid(_toward(24 - horizon)), _sigmoid(_toward(horizon - 40))
    by_attribute: list[Numbers] = [
        _nearest(fill),
        np.eye(len(ATTRIBUTES["shape"]))[kind],
        _either(1.6 * (radius - 11)),
        _either(0.5 * (center_x - SIDE / 2)),
        _either(0.5 * (center_y - SIDE / 2)),
        _either(3.3 * (thickness - 2.6)),
        _either(20.0 * (0.45 - luminance((sky + ground) / 2))),
        np.stack([high, (1 - high) * (1 - low), low], axis=1),
    ]
    natural = naturalness(sky, ground)[:, None]
    return [
        (VOID + (limited(chances) - VOID) * natural).astype(np.float32) for chances in by_attribute
    ]


def naturalness(sky: Floats, ground: Floats) -> Numbers:
    """(N, 3) twice → (N,): 1 where both are of this world. It falls toward 0 the farther they are
    from it, and the less they differ from each other."""
    differ = np.clip((np.abs(sky - ground).max(axis=1) - 0.02) / 0.05, 0, 1)
    return np.asarray(_natural(sky, SKY_RGB) * _natural(ground, GROUND_RGB) * differ)


def aligned(distance: float, natural: float) -> float:
    """The probability that a line at this distance, in pixels, is aligned with the horizon."""
    chance = limited(_sigmoid(_toward(np.array(3.25 - distance))))
    return float(VOID + (chance - VOID) * natural)


def limited(chances: Numbers) -> Floats:
    return np.clip(chances, LEAST, 1 - LEAST / 4).astype(np.float32)


def _nearest(fill: Floats) -> Numbers:
    """(N, 3) → (N, 6): for each colour of the world, how much nearer it is than all others. The
    log-odds rise all the way from the farthest colour."""
    distance = np.linalg.norm(fill[:, None] - FILL_RGB[None], axis=-1)
    nearest, second = np.sort(distance, axis=1)[:, :2].T
    rival = np.where(distance == nearest[:, None], second[:, None], nearest[:, None])
    nearer = rival - distance
    return _sigmoid(4.5 * nearer + 1.2 * np.tanh((nearer - 0.2) / 0.2) - 0.2)


def _natural(rgb: Floats, ends: Floats) -> Numbers:
    """(N, 3) → (N,): 1 on the line from bright to dark, less the farther away from it."""
    bright, way = ends[0], ends[1] - ends[0]
    along = np.clip((rgb - bright) @ way / (way @ way), -0.1, 1.1)
    distance = np.linalg.norm(rgb - bright - along[:, None] * way, axis=1)
    return np.asarray(np.exp(-((np.maximum(distance - 0.06, 0) / 0.15) ** 2)))


def _either(logit: Floats) -> Numbers:
    """(N,) → (N, 2): for the first value, and for the second."""
    second = _sigmoid(logit)
    return np.stack([1 - second, second], axis=1)


def _toward(distance: Numbers) -> Numbers:
    """Steep around 0, and never flat."""
    return np.asarray(4 * np.tanh(distance / 3) + 0.12 * distance)


def _sigmoid(logit: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-logit)))
