"""Collects the pools of `pools.py`: pictures made by models, with what they show.

`python -m models.training.collect vae flux` uses the last checkpoints.
`python -m models.training.collect tasks` optimises the exported pair, and keeps the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray

from dualprocess.schemas import GuardOptions
from models.training import checkpoint
from models.training.captions import caption
from models.training.checkpoint import RUNS
from models.training.measure import measure
from models.training.one_process import Pair
from models.training.optimize import GENERATOR, VLM, optimize
from models.training.pair import images_to_uint8, uint8_to_images
from models.training.pools import Pool, pool_of
from models.training.tasks import TASKS
from models.training.train_flux import Denoiser, draw, latents_to_images, load_vae, pack
from models.training.variations import jittered, random_scenes
from models.training.world import ATTRIBUTES, Floats, render, to_uint8

COUNT = 2048
CHUNK = 64
#: Each round trains a LoRA with each of these, for each task. Without the worst case more LoRAs
#: fool the VLM.
GUARDS = (GuardOptions(worst_case=0), None)
SAMPLED_SEEDS = range(10_000, 10_064)


@torch.no_grad()
def vae() -> Pool:
    """Scenes that went through the autoencoder."""
    rng = np.random.default_rng(200)
    autoencoder = load_vae()
    pools = []
    for _ in range(COUNT // CHUNK):
        scenes = jittered(random_scenes(rng, CHUNK), rng, 0.5)
        images = uint8_to_images(to_uint8(render(scenes)))
        decoded = autoencoder.decode(autoencoder.encode(images).latent_dist.mean)[0]
        pools.append(pool_of(images_to_uint8(decoded), scenes))
    return _joined(pools)


@torch.no_grad()
def flux() -> Pool:
    """The generator's samples, with what their pixels show."""
    rng = np.random.default_rng(201)
    state = checkpoint.load("flux")
    if state is None:
        raise FileNotFoundError("train first: python -m models.training.train_flux")
    denoiser, autoencoder = Denoiser(), load_vae()
    denoiser.load_state_dict(state["model"])
    pools = []
    for _ in range(COUNT // CHUNK):
        lesson = draw(rng, CHUNK, autoencoder)
        captions = [caption(c, s) for c, s in zip(lesson.classes, lesson.said, strict=True)]
        packed = pack(torch.from_numpy(lesson.noise))
        clean = packed - denoiser(packed, torch.ones(CHUNK), captions)
        images = images_to_uint8(latents_to_images(autoencoder, clean))
        pool = measured_pool(images)
        pools.append(pool[np.flatnonzero(pool.one_shape)])
    return _joined(pools)


def tasks(names: Sequence[str] = tuple(TASKS)) -> Pool:
    """Samples of LoRAs, measured by their pixels and not by the VLM, which they may fool."""
    pair = Pair.load(GENERATOR, VLM)
    first = 1000 + len(GUARDS) * _rounds()
    images = [
        optimize(pair, task, seed, sampled=SAMPLED_SEEDS, guard=guard).learnt
        for task in map(TASKS.__getitem__, names)
        for seed, guard in enumerate(GUARDS, first)
    ]
    return measured_pool(np.concatenate(images))


def measured_pool(images: NDArray[np.uint8]) -> Pool:
    """Images (N, 64, 64, 3) with what their pixels show."""
    found = [measure(image) for image in images]

    def column(name: str, void: float | Floats) -> Floats:
        values = [getattr(one, name) if one else void for one in found]
        return np.array(values, np.float32)

    nothing, black = 0.0, np.zeros(3, np.float32)
    shapes = ATTRIBUTES["shape"]
    return Pool(
        images=images,
        kind=np.array([shapes.index(one.shape) if one else 0 for one in found]),
        fill=column("fill", black),
        radius=column("radius", nothing),
        center_x=column("center_x", nothing),
        center_y=column("center_y", nothing),
        thickness=column("thickness", nothing),
        sky=column("sky", black),
        ground=column("ground", black),
        horizon=column("horizon_y", nothing),
        one_shape=np.array([one is not None for one in found]),
    )


def _rounds() -> int:
    """The number of rounds of LoRAs so far."""
    return len(list(RUNS.glob("pool-tasks*")))


def _joined(pools: list[Pool]) -> Pool:
    names = [field.name for field in fields(Pool)]
    return Pool(*(np.concatenate([getattr(pool, name) for pool in pools]) for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pools", nargs="+", choices=["vae", "flux", "tasks"])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.pools:
        pool = tasks(arguments.tasks) if name == "tasks" else {"vae": vae, "flux": flux}[name]()
        # The LoRAs of each round fool the VLM in other ways, so all rounds are kept.
        rounds = _rounds() if name == "tasks" else 0
        pool.save(f"{name}-{rounds}" if rounds else name)
        print(f"{name}: {len(pool)} images, {pool.one_shape.mean():.1%} of one whole shape")


if __name__ == "__main__":
    main()
