"""Resizing as PIL does it, and the clamp that lets saturated values back."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from services.vlm.preprocess import Normalization, clamp, resize

Mode = Literal["bilinear", "bicubic", "lanczos"]
FILTERS: dict[Mode, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@pytest.mark.parametrize("mode", FILTERS)
@pytest.mark.parametrize("size", [(9, 40), (37, 11), (24, 16)], ids=str)
def test_a_resize_is_pils(mode: Mode, size: tuple[int, int]) -> None:
    """In its mode F, which does not round; and so far from black and white that nothing clamps."""
    height, width = size
    plane = np.random.default_rng(1).uniform(0.45, 0.55, (24, 16)).astype(np.float32)
    wanted = np.array(Image.fromarray(plane, "F").resize((width, height), FILTERS[mode]))
    got = resize(torch.from_numpy(plane)[None, None], size, mode)
    np.testing.assert_allclose(got[0, 0].numpy(), wanted, atol=2e-6)


@pytest.mark.parametrize("mode", ["bicubic", "lanczos"])
@pytest.mark.parametrize("vertical", [False, True])
def test_an_overshoot_is_cut_where_pil_cuts_it(mode: Mode, vertical: bool) -> None:
    edge = np.zeros((16, 16), np.uint8)
    edge[:, 8:] = 255
    edge = edge.T.copy() if vertical else edge
    wanted = np.array(Image.fromarray(edge).resize((40, 40), FILTERS[mode])) / 255
    got = resize(torch.from_numpy(edge)[None, None] / 255, (40, 40), mode)[0, 0].numpy()
    assert got.min() == 0.0
    assert got.max() == 1.0
    np.testing.assert_allclose(got, wanted, atol=0.5 / 255 + 1e-6)


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    values = torch.full((2, 3, 1, 2), 0.5)
    made = Normalization([0.5, 0.25, 0.0], [0.5, 0.5, 0.25])(values)
    assert made[:, :, 0, 1].tolist() == [[0.0, 0.5, 2.0]] * 2


@pytest.mark.parametrize("small", [1.0, 1e-6])
def test_outside_only_what_pulls_back_is_kept(small: float) -> None:
    values = torch.tensor([-3.0, -0.5, 0.5, 3.0], requires_grad=True)
    for gradient, kept in (
        ([-small, small, -small, small], [-small, small, -small, small]),
        ([small, small, -small, -small], [0.0, small, -small, 0.0]),
    ):
        (got,) = torch.autograd.grad(clamp(values, -1.0, 1.0), values, torch.tensor(gradient))
        torch.testing.assert_close(got, torch.tensor(kept), rtol=0, atol=0)
