"""Regions without data are told from data, and take no part in anything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from jaxcryo.config import IntensityConfig
from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.tomogram.filling import grown, in_runs
from jaxcryo.tomogram.normalization import normalization, scaled
from jaxcryo.tomogram.resample import resampled
from jaxcryo.tomogram.statistics import Statistics, surveyed

SHAPE = (40, 90, 110)


def volume_of(voxels: NDArray[np.generic], spacing: float = 10.0) -> Volume:
    grid = VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=(spacing,) * 3)
    return Volume(name="TS_1", voxels=voxels, grid=grid)


def noise(seed: int = 0) -> NDArray[np.float32]:
    """Skewed, as tomograms are: dark bodies in noise."""
    rng = np.random.default_rng(seed)
    body = gaussian_filter(rng.normal(size=SHAPE), 3)
    return (rng.normal(size=SHAPE) - 60 * np.maximum(body - 1.5 * body.std(), 0)).astype(np.float32)


def wedge() -> NDArray[np.bool_]:
    """What a tilted specimen leaves empty: wide at the first slice's left, narrow further down, and mirrored."""
    z, _, x = np.indices(SHAPE)
    return (x < 30 - z) | (x >= SHAPE[2] - z)


def corners() -> NDArray[np.bool_]:
    """The same, with the tilt axis turned in the plane."""
    z, y, x = np.indices(SHAPE)
    return (x + y < 75 - z) | (x + y >= 150 + z)


FILLINGS = {
    "zeros": lambda v: np.zeros(SHAPE),
    "an offset": lambda v: np.full(SHAPE, 100.0),
    "the mean": lambda v: np.full(SHAPE, v.mean()),
    "each slice's mean": lambda v: np.broadcast_to(v.mean(axis=(1, 2), keepdims=True), SHAPE),
    "NaN": lambda v: np.full(SHAPE, np.nan),
    "two values": lambda v: np.where(np.indices(SHAPE)[2] < 55, -3.0, 7.5),
}
REGIONS = {
    "wedge": wedge,
    "corners": corners,
    "slices": lambda: np.indices(SHAPE)[0] > 27,
    "block": lambda: np.all([(i >= 8) & (i < 36) for i in np.indices(SHAPE)], axis=0),
    "nearly all": lambda: np.indices(SHAPE)[2] < 80,
}


def last_of_row(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.broadcast_to(voxels[:, :, 7:8], SHAPE)


def same(found: Statistics, expected: Statistics, rel: float = 1e-6) -> None:
    for name in ("count", "mean", "std", "median", "deviation"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=rel, abs=rel), name
    assert found.skewness == pytest.approx(expected.skewness, abs=0.25)


CASES = [*itertools.product(FILLINGS, REGIONS), ("the last voxel repeated", "block")]


@pytest.mark.parametrize(("filling", "region"), CASES)
def test_filling_is_found_and_changes_no_figure(filling: str, region: str) -> None:
    data, empty = noise(), REGIONS[region]()
    filled = np.where(empty, FILLINGS.get(filling, last_of_row)(data), data).astype(np.float32)
    told: list[str] = []
    volume = surveyed(volume_of(filled), note=told.append)
    found = np.isnan(volume.load())
    if filling == "the last voxel repeated":
        assert (found & ~empty).sum() == 28 * 28  # the voxels that are repeated
    else:
        assert not (found & ~empty).any()
    assert (empty & ~found).sum() < 0.02 * empty.sum()  # corners of which no side is as long as a run
    assert region == "corners" or found[empty].all()
    assert len(told) == 1 and "TS_1" in told[0] and f"{100 * volume.statistics.empty:.0f} %" in told[0]
    assert volume.has_gaps and volume.statistics.empty == pytest.approx(found.mean())
    same(volume.statistics, surveyed(volume_of(np.where(found, np.float32(np.nan), filled))).statistics)
    if region != "corners":
        assert volume.statistics.std == pytest.approx(data[~found].std(dtype=float), rel=1e-9)
    np.testing.assert_array_equal(volume.load()[~found], filled[~found])


def test_boxes_read_as_parts_of_the_whole() -> None:
    volume = surveyed(volume_of(np.where(corners(), 0, noise())))
    whole = volume.load()
    rng = np.random.default_rng(1)
    for _ in range(30):
        low = rng.integers(0, np.array(SHAPE) - 8)
        box = tuple(slice(int(a), int(a + n)) for a, n in zip(low, rng.integers(1, 40, 3), strict=True))
        np.testing.assert_array_equal(volume.read_box(*box), whole[box])


@pytest.mark.parametrize("std", [0.5, 0.7, 1.5, 4.0, 30.0])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_frequent_values_of_few_steps_are_data(std: float, smooth: float, dtype: str) -> None:
    values = np.random.default_rng(2).normal(size=SHAPE)
    values = gaussian_filter(values, smooth) if smooth else values
    steps = np.clip(np.rint(127 + std * values / values.std()), 0, 255).astype(dtype)
    told: list[str] = []
    volume = surveyed(volume_of(steps), note=told.append)
    assert not told and not volume.has_gaps and volume.statistics.empty == 0
    assert volume.statistics.mean == pytest.approx(steps.mean(dtype=float), rel=1e-9)
    assert volume.statistics.std == pytest.approx(steps.std(dtype=float), rel=1e-9)
    # the quartiles know nothing of the steps
    assert volume.statistics.deviation == pytest.approx(std, rel=0.1)
    assert volume.statistics.median == pytest.approx(steps.mean(dtype=float), abs=0.1 + 0.005 * std)


@pytest.mark.parametrize("value", [0, 127, 255])
def test_bytes_with_empty_borders(value: int) -> None:
    """Also where the filling is the most frequent value of the data."""
    steps = np.clip(np.rint(127 + 20 * noise()), 0, 255).astype(np.uint8)
    volume = surveyed(volume_of(np.where(wedge(), np.uint8(value), steps)))
    found = np.isnan(volume.load())
    assert found[wedge()].all() and found[~wedge()].mean() < 0.01
    alone = np.where(wedge(), np.nan, steps).astype(np.float32)
    same(volume.statistics, surveyed(volume_of(alone)).statistics, rel=0.01)


def test_statistics_are_exact_where_the_mean_is_far_from_zero() -> None:
    voxels = (np.random.default_rng(3).integers(-9, 10, SHAPE) + 30000).astype(np.int16)
    found = surveyed(volume_of(voxels)).statistics
    assert found.mean == pytest.approx(voxels.mean(dtype=float), rel=1e-12)
    assert found.std == pytest.approx(voxels.std(dtype=float), rel=1e-9)
    assert found.count == found.voxels == voxels.size


def test_robust_figures_hold_against_gold_and_the_others_do_not() -> None:
    voxels = np.random.default_rng(4).normal(5, 2, SHAPE).astype(np.float32)
    voxels[10:22, 20:50, 20:50] = np.random.default_rng(5).normal(-300, 20, (12, 30, 30))
    found = surveyed(volume_of(voxels)).statistics
    assert found.median == pytest.approx(5, abs=0.1) and found.deviation == pytest.approx(2, rel=0.05)
    assert found.std > 20
    rule = normalization(volume_of(voxels), IntensityConfig.robust())
    changed = rule(voxels)
    assert changed.min() == -10 and changed.max() < 6 and np.median(changed) == pytest.approx(0, abs=1e-3)
    unclipped = normalization(volume_of(voxels), IntensityConfig(rule="robust"))(voxels)
    np.testing.assert_array_equal(np.clip(unclipped, -10, 10), changed)


def test_networks_see_zero_where_there_is_no_data() -> None:
    for rule in ("fixed", "tomogram", "robust"):
        volume = surveyed(scaled(volume_of(np.where(wedge(), 0, noise())), gain=2.0, offset=100.0))
        changed = normalization(volume, IntensityConfig(rule=rule, mean=90.0, std=4.0))(volume.load())  # type: ignore[arg-type]
        assert not changed[wedge()].any() and changed[~wedge()].all()


def test_resampling_mixes_nothing_into_the_data() -> None:
    data, empty = gaussian_filter(noise(), 1.5) + 100, wedge()
    volume = surveyed(volume_of(np.where(empty, 0, data).astype(np.float32), 7.84))
    fresh, whole = resampled(volume, 10.0), resampled(volume_of(data, 7.84), 10.0).load()
    voxels = fresh.load()
    assert fresh.has_gaps and np.isnan(voxels).mean() == pytest.approx(empty.mean(), rel=0.05)
    assert np.nanmax(np.abs(voxels - whole)) < 3 * data.std() and np.nanmin(voxels) > 90
    far = resampled(volume_of(gaussian_filter(empty.astype(np.float32), 3), 7.84), 10.0).load() < 1e-4
    np.testing.assert_allclose(voxels[far], whole[far], atol=2e-4)
    second = surveyed(fresh).statistics
    assert second.mean == pytest.approx(volume.statistics.mean, abs=0.1)


def test_tomograms_without_data() -> None:
    for voxels, message in (
        (np.full(SHAPE, 7.0, np.float32), "every voxel is 7"),
        (np.full(SHAPE, np.nan, np.float32), "no data"),
        (np.zeros((4, 5, 6), np.float32), "every voxel is 0"),
    ):
        with pytest.raises(InputError, match=message):
            surveyed(volume_of(voxels))
    with pytest.raises(InputError, match="1 voxels are infinite"):
        surveyed(volume_of(np.where(np.arange(24).reshape(2, 3, 4) == 5, np.inf, 1.0)))


def test_runs_are_along_rows_and_columns_with_what_adjoins_them() -> None:
    voxels = np.arange(2 * 60 * 50, dtype=np.float32).reshape(2, 60, 50)
    voxels[0, 5, 10:26] = voxels[1, 20:36, 7] = -1
    voxels[0, 40, 10:25] = -1
    voxels[0, 6, 12:20] = voxels[0, 7, 12:14] = -1
    found = in_runs(voxels)
    assert found.sum() == 32 and found[0, 5, 10:26].all() and found[1, 20:36, 7].all()
    wider = grown(found, voxels)
    assert wider.sum() == 42 and wider[0, 6, 12:20].all() and wider[0, 7, 12:14].all()
