"""Peaks are the largest voxels of their cubes, whatever the slabs, and of equal ones the first."""

from __future__ import annotations

import itertools
import logging

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from jaxcryo.errors import InputError
from jaxcryo.picking import peaks as peaks_module
from jaxcryo.picking.peaks import Peaks, collect_peaks, find_peaks, merge_close
from jaxcryo.picking.stitch import Slab

BOTH = [0.5, 0.5]


def found_in(
    heatmap: np.ndarray, thresholds: list[float], *, heights: list[int] | None = None, **options: int
) -> Peaks:
    starts = np.cumsum([0, *(heights or [heatmap.shape[1]])])
    slabs = [Slab(z_start=int(a), heatmap=jnp.asarray(heatmap[:, a:b])) for a, b in itertools.pairwise(starts)]
    return collect_peaks(find_peaks(slabs, thresholds, **options))


def rows(peaks: Peaks) -> list[tuple[int, ...]]:
    return [(int(t), *map(int, zyx)) for t, zyx in zip(peaks.type_index, peaks.zyx_voxel, strict=True)]


def random_heatmap(shape: tuple[int, int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "nms_voxel"), [((2, 24, 30, 31), 3), ((2, 24, 30, 31), 7), ((1, 9, 4, 33), 9), ((1, 5, 40, 30), 5)]
)
def test_peaks_are_those_of_a_maximum_filter(shape: tuple[int, int, int, int], nms_voxel: int) -> None:
    heatmap = random_heatmap(shape)
    thresholds = [0.5, 2.0][: shape[0]]
    peaks = found_in(heatmap, thresholds, nms_voxel=nms_voxel)
    largest = np.stack([maximum_filter(c, size=nms_voxel, mode="constant", cval=-np.inf) for c in heatmap])
    expected = np.argwhere((heatmap == largest) & (heatmap > np.array(thresholds)[:, None, None, None]))
    assert rows(peaks) == [tuple(map(int, e)) for e in expected]
    np.testing.assert_array_equal(peaks.score, heatmap[tuple(expected.T)])


@pytest.mark.parametrize("heights", [[1] * 24, [8, 8, 8], [2, 19, 3], [23, 1]])
@pytest.mark.parametrize("levels", [None, 4], ids=["distinct values", "many equal values"])
def test_slabs_have_no_influence(heights: list[int], levels: int | None) -> None:
    heatmap = random_heatmap((2, 24, 24, 24), seed=3)
    if levels:
        heatmap = np.round(np.abs(heatmap) * levels / 4).astype(np.float32)
    whole = found_in(heatmap, [0.2, 0.2])
    parts = found_in(heatmap, [0.2, 0.2], heights=heights)
    assert len(whole) > 0
    assert rows(parts) == rows(whole)
    np.testing.assert_array_equal(parts.score, whole.score)
    np.testing.assert_array_equal(parts.offset_zyx_voxel, whole.offset_zyx_voxel)


def test_of_equal_values_the_first_counts_as_the_larger_one() -> None:
    heatmap = np.round(np.abs(random_heatmap((2, 24, 24, 24), seed=4))).astype(np.float32)
    padded = np.pad(heatmap, [(0, 0), *[(3, 3)] * 3], constant_values=-np.inf)
    expected = heatmap > 0.5
    for shift in itertools.product(range(-3, 4), repeat=3):
        z, y, x = (slice(3 + s, 27 + s) for s in shift)
        other = padded[:, z, y, x]
        expected &= heatmap > other if shift < (0, 0, 0) else heatmap >= other
    assert expected.sum() > 10
    assert rows(found_in(heatmap, BOTH)) == [tuple(map(int, e)) for e in np.argwhere(expected)]


@pytest.mark.parametrize("offset", range(4))
def test_a_plateau_gives_its_first_voxel(offset: int) -> None:
    heatmap = np.zeros((2, 24, 24, 24), np.float32)
    heatmap[0, 5 + offset : 10 + offset, 6:12, 7 + offset : 17] = 0.8
    assert rows(found_in(heatmap, BOTH)) == [(0, 5 + offset, 6, 7 + offset)]
    assert rows(found_in(heatmap, BOTH, heights=[1] * 24)) == [(0, 5 + offset, 6, 7 + offset)]


def test_a_constant_volume_gives_one_peak() -> None:
    heatmap = np.full((2, 12, 24, 24), 0.4, np.float32)
    assert rows(found_in(heatmap, [0.3, 0.5], heights=[5, 7])) == [(0, 0, 0, 0)]


def test_no_two_peaks_lie_in_each_other_s_cube() -> None:
    heatmap = np.round(random_heatmap((2, 40, 24, 24), seed=5), 1)
    zyx = found_in(heatmap, [0.0, 9.0]).zyx_voxel
    distance = np.abs(zyx[:, None] - zyx[None]).max(-1)
    np.fill_diagonal(distance, 99)
    assert distance.min() > 3


def test_a_larger_voxel_s_cube_reaches_over_slabs() -> None:
    heatmap = np.zeros((2, 12, 24, 24), np.float32)
    heatmap[0, 5, 4, 4], heatmap[0, 8, 4, 4], heatmap[0, 9, 4, 8] = 0.8, 0.9, 0.7
    assert rows(found_in(heatmap, BOTH, heights=[6, 2, 4])) == [(0, 8, 4, 4), (0, 9, 4, 8)]


def test_slots_grow_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    heatmap = random_heatmap((2, 16, 24, 24), seed=7)
    expected = rows(found_in(heatmap, [0.0, 0.0]))
    with caplog.at_level(logging.INFO, logger="jaxcryo.picking.peaks"):
        assert rows(found_in(heatmap, [0.0, 0.0], heights=[8, 8], slots=16)) == expected
    assert len(expected) > 8
    assert "slots" in caplog.text


@pytest.mark.slow
def test_nothing_compiles_again_within_a_tomogram_nor_for_the_next_one() -> None:
    steps = (peaks_module._largest_of_cells, peaks_module._candidates, peaks_module._check)
    before = [step._cache_size() for step in steps]
    found_in(random_heatmap((1, 33, 13, 14)), [0.0], heights=[4, 8, 8, 13])
    found_in(random_heatmap((1, 20, 13, 14)), [0.5])
    assert [step._cache_size() - b for step, b in zip(steps, before, strict=True)] == [1, 1, 1]


def test_a_threshold_afterwards_is_a_threshold_before() -> None:
    heatmap = random_heatmap((2, 16, 24, 24), seed=9)
    all_peaks = found_in(heatmap, [-9.0, -9.0])
    # Also where the threshold lies between a score and its neighbour in float32.
    for threshold in (0.3, float(np.median(all_peaks.score)), 2.0):
        direct = found_in(heatmap, [threshold, threshold])
        assert rows(direct) == [r for r, s in zip(rows(all_peaks), all_peaks.score, strict=True) if s > threshold]


def test_a_score_in_float32_is_compared_with_the_threshold_itself() -> None:
    heatmap = np.zeros((2, 8, 24, 24), np.float32)
    heatmap[:, 4, 4, 4] = 0.3  # as float32 this is above 0.3
    assert rows(found_in(heatmap, [0.3, float(np.float32(0.3))])) == [(0, 4, 4, 4)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_heatmap_that_is_not_finite_is_an_error(value: float) -> None:
    heatmap = np.zeros((2, 16, 24, 24), np.float32)
    heatmap[1, 11, 3, 3] = value
    with pytest.raises(InputError, match=r"NaN.*\b8\b"):
        found_in(heatmap, BOTH, heights=[8, 8])


@pytest.mark.parametrize("nms_voxel", [1, 4, 0])
def test_the_side_of_the_cube_is_odd(nms_voxel: int) -> None:
    with pytest.raises(InputError, match="odd"):
        found_in(np.zeros((1, 8, 8, 8), np.float32), [0.5], nms_voxel=nms_voxel)


def test_no_slabs_no_peaks() -> None:
    assert len(collect_peaks(find_peaks([], [0.5]))) == 0


def test_merging_keeps_the_better_of_two_of_one_type() -> None:
    positions = np.array([[0, 0, 0], [0, 0, 5], [0, 0, 9.5], [0, 0, 1], [0, 0, 30.0]])
    types = np.array([0, 0, 0, 1, 0])
    score = np.array([0.5, 0.9, 0.7, 0.1, 0.2])
    assert merge_close(positions, types, score, [6.0, 6.0]).tolist() == [False, True, False, True, True]
    assert merge_close(positions, types, score, [4.5, 6.0]).tolist() == [True, True, True, True, True]
    assert merge_close(positions, types, score, [0.0, 0.0]).all()


def test_merging_is_greedy_what_was_removed_removes_nothing() -> None:
    positions = np.array([[0, 0, 0], [0, 0, 4], [0, 0, 8.0]])
    assert merge_close(positions, np.zeros(3, int), np.array([0.9, 0.8, 0.7]), [5.0]).tolist() == [True, False, True]


def test_merging_and_thresholds_commute() -> None:
    random = np.random.default_rng(0)
    positions, types, score = random.uniform(0, 60, (400, 3)), random.integers(0, 2, 400), random.uniform(0, 1, 400)
    kept = merge_close(positions, types, score, [7.0, 12.0])
    for threshold in (0.2, 0.5, 0.8):
        above = score > threshold
        expected = np.flatnonzero(above)[merge_close(positions[above], types[above], score[above], [7.0, 12.0])]
        np.testing.assert_array_equal(np.flatnonzero(kept & above), expected)
    for index, radius in enumerate([7.0, 12.0]):
        points = positions[kept & (types == index)]
        distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(len(points)) * 99
        assert distance.min() >= radius
