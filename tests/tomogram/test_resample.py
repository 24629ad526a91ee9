"""Resampled volumes keep particles where they are, and come slab by slab as they would at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.tomogram.normalization import scaled
from jaxcryo.tomogram.resample import resampled

FINE, ENGINE, COARSE = 7.84, 10.012444, 13.48


def volume_of(voxels: np.ndarray, spacing: float | tuple[float, float, float]) -> Volume:
    spacing_zyx = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    return Volume(name="R", voxels=voxels, grid=VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=spacing_zyx))


def planted(spacing: float, xyz: np.ndarray, *, extent: float = 440, sigma: float = 25.0) -> Volume:
    """A Gaussian at so many ångströms from the corner."""
    volume = volume_of(np.zeros((round(extent / spacing),) * 3, np.float32), spacing)
    center = xyz[::-1] / spacing - 0.5
    distance2 = sum((i - c) ** 2 for i, c in zip(np.indices(volume.grid.shape_zyx), center, strict=True))
    return dataclasses.replace(volume, voxels=np.exp(-distance2 * spacing**2 / 2 / sigma**2).astype(np.float32))


@pytest.mark.parametrize("spacing", [FINE, COARSE, 4.1, 10.5])
def test_planted_particles_stay_in_place_without_bias(spacing: float) -> None:
    errors = []
    for xyz in np.random.default_rng(0).uniform(180, 260, (12, 3)):
        volume = resampled(planted(spacing, xyz), ENGINE)
        assert volume.grid.spacing_zyx_angstrom == (ENGINE,) * 3
        found = volume.grid.to_angstrom([center_of_mass(volume.load())])[0]
        errors.append(found - (xyz - ENGINE))  # as a volume of the engine's own spacing gives it, by its label's offset
    # half a voxel would be 5 Å
    assert np.abs(errors).max() < 0.3 and np.abs(np.mean(errors, axis=0)).max() < 0.1


def test_the_same_spacing_changes_nothing() -> None:
    volume = volume_of(np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32), 10.0)
    same = resampled(volume, 10.0)
    assert same.grid == volume.grid
    np.testing.assert_allclose(same.load(), volume.voxels, atol=1e-6)


@pytest.mark.parametrize("spacing", [FINE, COARSE])
def test_constants_stay_and_slopes_stay_straight_up_to_the_rim(spacing: float) -> None:
    flat = resampled(volume_of(np.full((20, 21, 22), 3, np.int16), spacing), ENGINE).load()
    np.testing.assert_allclose(flat, 3, rtol=1e-6)
    slope = volume_of(np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (40, 4, 4)).copy(), spacing)
    fresh = resampled(slope, ENGINE)
    n = fresh.grid.shape_zyx[0]
    zyx = np.stack([np.arange(n), np.ones(n), np.ones(n)], axis=1)
    expected = (zyx[:, 0] + 0.5) * ENGINE / spacing - 0.5
    inner = slice(4, -4)
    np.testing.assert_allclose(fresh.load()[inner, 1, 1], expected[inner], atol=0.03)


def test_what_is_finer_than_the_new_voxels_is_not_folded_into_them() -> None:
    stripes = volume_of(np.tile(np.float32([1, -1]), (8, 8, 40)), 5.0)
    assert np.abs(resampled(stripes, 20.0).load()[:, :, 2:-2]).max() < 0.02


def test_boxes_are_parts_of_the_whole_and_read_only_what_they_need() -> None:
    seen: list[tuple[slice, ...]] = []

    class Watched:
        shape = (60, 50, 40)

        def __init__(self) -> None:
            self.voxels = np.random.default_rng(1).normal(size=self.shape).astype(np.float32)

        def __getitem__(self, key: tuple[slice, slice, slice]) -> np.ndarray:
            seen.append(key)
            return self.voxels[key]

    grid = VoxelGrid(shape_zyx=Watched.shape, spacing_zyx_angstrom=(7.84, 8.0, 13.0))
    fresh = resampled(Volume(name="R", voxels=Watched(), grid=grid), ENGINE)
    whole = fresh.load()
    assert max(key[0].stop - key[0].start for key in seen) <= 8
    np.testing.assert_allclose(np.concatenate([fresh.read(0, 11), fresh.read(11, 47)]), whole, atol=1e-6)
    seen.clear()
    box = fresh.read_box(slice(20, 22), slice(3, 9), slice(10, 40))
    np.testing.assert_allclose(box, whole[20:22, 3:9, 10:40], atol=1e-6)
    z, y, _ = zip(*seen, strict=True)
    assert sum(s.stop - s.start for s in z) <= 8 and max(s.stop - s.start for s in y) <= 14


def test_the_box_is_the_same_to_half_a_voxel() -> None:
    for spacing in (FINE, COARSE):
        volume = volume_of(np.zeros((30, 31, 32), np.float32), spacing)
        fresh = resampled(volume, ENGINE).grid
        for n, m, s in zip(fresh.shape_zyx, volume.grid.shape_zyx, volume.grid.spacing_zyx_angstrom, strict=True):
            assert abs(n * ENGINE - m * s) <= ENGINE / 2 + 1e-6


def test_spacings_that_cannot_both_be_right() -> None:
    with pytest.raises(InputError, match="--voxel-spacing"):
        resampled(volume_of(np.zeros((4, 4, 4), np.float32), 0.1), ENGINE)


def test_scaled_voxels() -> None:
    volume = volume_of(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), 10.0)
    np.testing.assert_array_equal(scaled(volume, gain=-1.0).load(), -np.arange(24.0).reshape(2, 3, 4))
    np.testing.assert_array_equal(scaled(volume, gain=2, offset=1).read(1, 2)[0, 0], [25, 27, 29, 31])
