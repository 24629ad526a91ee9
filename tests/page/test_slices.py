"""Slices as images: of the right voxels, within the budget, never more than a few read at a time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.page import SliceImages, slice_images


def volume_of(voxels: object, shape: tuple[int, int, int]) -> Volume:
    return Volume(name="TS_1", voxels=voxels, grid=VoxelGrid(shape_zyx=shape, spacing_zyx_angstrom=(10.0,) * 3))


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.indices(shape)
    return (np.sin(z / 5) + np.cos(y / 9) + np.sin(x / 7)).astype(np.float32)


def decoded(images: SliceImages) -> np.ndarray:
    """Voxel values, from black to white."""
    low, high = images.black_white
    gray = np.stack([np.asarray(Image.open(io.BytesIO(j)), np.float32) for j in images.jpegs])
    return low + gray / 255 * (high - low)


def test_images_are_the_slices() -> None:
    voxels = smooth((10, 40, 60))
    images = slice_images(volume_of(voxels, voxels.shape))
    assert images.bin_zyx == (1, 1, 1) and images.size_yx == (40, 60) and len(images.jpegs) == 10
    low, high = images.black_white
    np.testing.assert_allclose(decoded(images), np.clip(voxels, low, high), atol=0.05 * (high - low))


def test_within_the_budget_at_the_cost_of_sharpness() -> None:
    voxels = np.random.default_rng(0).normal(size=(24, 96, 96)).astype(np.float32)
    volume = volume_of(voxels, voxels.shape)
    sizes, bins = [], []
    for budget in (10**6, 150_000, 40_000, 8_000):
        images = slice_images(volume, budget_bytes=budget)
        sizes.append(sum(map(len, images.jpegs)))
        bins.append(int(np.prod(images.bin_zyx)))
        assert sizes[-1] <= budget
        assert len(images.jpegs) == 24 // images.bin_zyx[0]
    assert sizes == sorted(sizes, reverse=True) and bins == sorted(bins) and bins[0] == 1 < bins[-1]


def test_a_pixel_is_the_mean_of_its_box() -> None:
    voxels = smooth((13, 1030, 22))
    images = slice_images(volume_of(voxels, voxels.shape))
    assert images.bin_zyx == (1, 2, 2) and images.size_yx == (515, 11)
    mean = voxels.reshape(13, 515, 2, 11, 2).mean(axis=(2, 4))
    low, high = images.black_white
    np.testing.assert_allclose(decoded(images), np.clip(mean, low, high), atol=0.05 * (high - low))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (7, 33, 31)])
@pytest.mark.parametrize("budget", [10**6, 2000])
def test_small_and_flat_volumes(shape: tuple[int, int, int], budget: int) -> None:
    images = slice_images(volume_of(np.full(shape, 4.5, np.float32), shape), budget_bytes=max(budget, 400 * shape[0]))
    assert images.jpegs and Image.open(io.BytesIO(images.jpegs[0])).size[::-1] == images.size_yx


def test_no_more_than_a_few_slices_at_a_time() -> None:
    class Counting:
        """Voxels that know how many slices were asked for at once."""

        most = 0

        def __getitem__(self, at: tuple[slice, slice, slice]) -> np.ndarray:
            self.most = max(self.most, at[0].stop - at[0].start)
            return smooth((at[0].stop - at[0].start, 20, 30))

    voxels = Counting()
    assert len(slice_images(volume_of(voxels, (200, 20, 30))).jpegs) == 200
    assert voxels.most <= 16
