"""Heatmaps as small images: the largest value of each box, however the volume is cut into slabs."""

from __future__ import annotations

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcryo.page import Overlay, OverlayImages
from jaxcryo.picking.stitch import Slab

FLOOR = 0.05


def fed(heatmap: np.ndarray, heights: list[int]) -> OverlayImages:
    overlay = Overlay(heatmap.shape[1:], len(heatmap), floor=FLOOR)
    z = 0
    for height in heights:
        overlay.add(Slab(z_start=z, heatmap=jnp.asarray(heatmap[:, z : z + height])))
        z += height
    assert z == heatmap.shape[1]
    return overlay.images()


def decoded(images: OverlayImages) -> np.ndarray:
    slices = [np.asarray(Image.open(io.BytesIO(p))) for p in images.pngs]
    return np.stack([s.reshape(-1, *images.size_yx) for s in slices], axis=1)


@pytest.mark.parametrize("shape", [(150, 20, 200), (5, 400, 30), (129, 7, 9)])
def test_a_pixel_is_the_largest_of_its_box(shape: tuple[int, int, int]) -> None:
    heatmap = np.random.default_rng(0).uniform(-0.2, 1.1, (2, *shape)).astype(np.float32)
    images = fed(heatmap, [shape[0]])
    seen = decoded(images)
    z, y, x = images.bin_zyx
    assert seen.shape == (2, *(-(-n // b) for n, b in zip(shape, images.bin_zyx, strict=True)))
    for k, j, i in np.random.default_rng(1).integers(0, seen.shape[1:], (50, 3)):
        box = heatmap[:, k * z : (k + 1) * z, j * y : (j + 1) * y, i * x : (i + 1) * x].max(axis=(1, 2, 3))
        expected = np.where(box > FLOOR, np.clip(np.rint(box * 255), 0, 255), 0)
        np.testing.assert_array_equal(seen[:, k, j, i], expected)


def test_slabs_make_no_difference() -> None:
    heatmap = np.random.default_rng(2).uniform(0, 1, (3, 140, 9, 11)).astype(np.float32)
    whole = fed(heatmap, [140])
    assert whole.bin_zyx[0] == 2
    assert fed(heatmap, [1, 12, 5, 61, 61]) == whole


def test_what_is_not_above_the_floor_is_nothing() -> None:
    heatmap = np.full((1, 2, 3, 4), FLOOR, np.float32)
    heatmap[0, 1, 2, 3] = 0.5
    seen = decoded(fed(heatmap, [2]))
    assert np.count_nonzero(seen) == 1 and seen.max() == 128


def test_beyond_the_budget_boxes_become_larger() -> None:
    heatmap = np.random.default_rng(3).uniform(0, 1, (2, 6, 21, 30)).astype(np.float32)
    overlay = Overlay(heatmap.shape[1:], 2, floor=FLOOR)
    overlay.add(Slab(z_start=0, heatmap=jnp.asarray(heatmap)))
    fine, coarse = overlay.images(), overlay.images(budget_bytes=4000)
    assert fine.bin_zyx == (1, 1, 1) and coarse.bin_zyx == (1, 2, 2) and coarse.size_yx == (11, 15)
    assert sum(map(len, coarse.pngs)) <= 4000 < sum(map(len, fine.pngs))
    padded = np.pad(decoded(fine), ((0, 0), (0, 0), (0, 1), (0, 0)))
    np.testing.assert_array_equal(decoded(coarse), padded.reshape(2, 6, 11, 2, 15, 2).max(axis=(3, 5)))


@pytest.mark.slow
def test_many_types_and_large_volumes_stay_small() -> None:
    for shape, classes in (((1000, 2000, 2000), 6), ((184, 630, 630), 60), ((184, 630, 630), 6)):
        overlay = Overlay(shape, classes, floor=FLOOR)
        overlay.add(Slab(z_start=0, heatmap=jnp.zeros((classes, 1, *shape[1:]))))
        height, width = overlay.images().size_yx
        assert height * width * classes * 128 <= 2 * 24_000_000
        assert max(height, width) <= 192
