"""Scale and contrast of a tomogram, told from its voxels alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.phantom.dataset import PhantomConfig, make_phantom
from jaxcryo.tomogram.normalization import scaled
from jaxcryo.tomogram.statistics import are_opposite, of_opposite_contrast, surveyed


@pytest.mark.parametrize("difficulty", [0.3, 1.0])
def test_particles_of_a_phantom_are_dark_and_of_its_negative_bright(difficulty: float) -> None:
    volume, _ = make_phantom(PhantomConfig(shape_zyx=(48, 160, 160), difficulty=difficulty), seed=3)
    own, negative = (surveyed(v).statistics for v in (volume, scaled(volume, gain=-2.0, offset=5.0)))
    assert own.skewness < -0.5
    assert negative.skewness == pytest.approx(-own.skewness, rel=1e-2)
    assert are_opposite(own.skewness, negative.skewness) and not are_opposite(own.skewness, own.skewness)
    assert negative.mean == pytest.approx(5 - 2 * own.mean, rel=1e-3)
    assert of_opposite_contrast({"a": own.skewness, "b": negative.skewness, "c": own.skewness}) == ["b"]


def test_erased_gold_does_not_hide_the_contrast_of_protein() -> None:
    volume, _ = make_phantom(PhantomConfig(shape_zyx=(48, 160, 160), difficulty=0.3), seed=3)
    voxels = -np.asarray(volume.voxels)
    for y, x in ((30, 30), (80, 120), (130, 60)):  # as dark as gold, wider than a bead
        voxels[18:30, y : y + 12, x : x + 12] = np.median(voxels) - 15 * voxels.std()
    with_gold = surveyed(dataclasses.replace(volume, voxels=voxels)).statistics.skewness
    assert are_opposite(with_gold, surveyed(volume).statistics.skewness)


def test_mean_and_deviation_and_noise_without_a_side() -> None:
    voxels = np.random.default_rng(0).normal(3, 2, (33, 60, 61)).astype(np.float32)
    volume = Volume(name="R", voxels=voxels, grid=VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=(10.0,) * 3))
    measured = surveyed(volume).statistics
    assert measured.mean == pytest.approx(3, abs=0.05) and measured.std == pytest.approx(2, abs=0.05)
    assert not are_opposite(measured.skewness, -2.0) or abs(measured.skewness) < 0.8
    with pytest.raises(InputError, match="every voxel is 7; expected a tomogram"):
        surveyed(dataclasses.replace(volume, voxels=np.full_like(voxels, 7)))
