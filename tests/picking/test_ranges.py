"""Ranges of slices have the peaks of the whole volume, to the last bit, and the slabs that are shown of it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array, Float

from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import ParticleType, Volume, VoxelGrid
from jaxcryo.picking import pipeline
from jaxcryo.picking.peaks import STEP_SLICES, Peaks, collect_peaks, find_peaks
from jaxcryo.picking.pipeline import find_picks, peaks_of_slices, picks_of_peaks
from jaxcryo.picking.ranges import z_ranges
from jaxcryo.picking.stitch import Slab
from jaxcryo.picking.windows import plan_windows, weight_sums
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.statistics import surveyed

TYPES = (ParticleType(name="bright", radius_angstrom=60.0), ParticleType(name="dark", radius_angstrom=90.0))


@pytest.fixture(scope="module", autouse=True)
def few_slots() -> Iterator[None]:
    """As many as these small volumes need, and more where they do not suffice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "find_peaks", functools.partial(find_peaks, slots=64))
        yield


@given(depth=st.integers(1, 3000), count=st.integers(1, 40), multiple=st.integers(1, 12))
def test_they_follow_each_other_and_are_alike(depth: int, count: int, multiple: int) -> None:
    ranges = z_ranges(depth, count, multiple=multiple)
    assert len(ranges) == count
    assert ranges[0][0] == 0 and ranges[-1][1] == depth
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
    step = np.lcm(STEP_SLICES, multiple)
    assert all(start % step == 0 for start, stop in ranges if start < stop)
    heights = [-(-stop // step) - -(-start // step) for start, stop in ranges]
    assert max(heights) - min(heights) <= 1


@given(
    depth=st.integers(1, 90),
    window=st.integers(1, 24),
    stride=st.integers(1, 24),
    ends=st.lists(st.integers(0, 90), min_size=2, max_size=2, unique=True),
)
def test_slices_have_all_windows_that_reach_into_them(depth: int, window: int, stride: int, ends: list[int]) -> None:
    start, stop = min(*ends, depth - 1), min(max(ends), depth)
    window = min(window, depth)
    whole = plan_windows((depth, 4, 4), (window, 4, 4), (min(stride, window), 4, 4))
    part = whole.of_slices(start, stop)
    seen = [(a, b) for a, b in map(whole.slices_of_layer, range(len(whole.z.starts))) if a < stop and b > start]
    assert [part.slices_of_layer(layer) for layer in range(len(part.z.starts))] == seen
    place = slice(whole.z.pad_before + start, whole.z.pad_before + stop)
    np.testing.assert_array_equal(weight_sums(part)[0][place], weight_sums(whole)[0][place])


def dependent(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
    """An answer that depends on where the window lies, and is not exact in float32."""
    mean = windows.mean((1, 2, 3), keepdims=True)
    return jnp.stack([windows / 3 + mean, mean / 7 - windows / 3], axis=1)


MODELS = [
    OpenModel(
        name=name,
        patch_zyx=patch,
        stride_zyx=stride,
        batch=3,
        classes=2,
        predict=dependent,
        intensity=IntensityConfig(rule=rule),
    )
    for name, patch, stride, rule in (
        ("one", (8, 16, 12), (4, 6, 5), "tomogram"),
        ("two", (12, 16, 16), (5, 8, 8), "tomogram"),
    )
]


def volume_of(depth: int, *, gaps: bool) -> Volume:
    voxels = np.random.default_rng(depth).normal(size=(depth, 24, 20)).astype(np.float32)
    if gaps:
        z, _, x = np.indices(voxels.shape)
        voxels[x + z > 0.8 * depth + 4] = np.nan
    grid = VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=(10.0, 10.0, 10.0))
    return surveyed(Volume(name="TS_1", voxels=voxels, grid=grid))


def check_same(found: Peaks, expected: Peaks) -> None:
    for field in dataclasses.fields(Peaks):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "count", "nms_voxel", "gaps", "masked"), [(40, 3, 19, False, False), (53, 3, 3, True, True)]
)
def test_their_peaks_are_those_of_the_whole(depth: int, count: int, nms_voxel: int, gaps: bool, masked: bool) -> None:
    volume = volume_of(depth, gaps=gaps)
    mask = Volume(name="mask", voxels=np.indices(volume.grid.shape_zyx)[1] > 9, grid=volume.grid) if masked else None
    config = InferenceConfig(nms_voxel=nms_voxel)

    def search(slices: tuple[int, int]) -> tuple[Peaks, list[Slab]]:
        slabs: list[Slab] = []
        peaks = peaks_of_slices(
            volume, MODELS, TYPES, slices, config=config, floor=0.1, on_slab=slabs.append, mask=mask
        )
        return peaks, slabs

    expected, whole = search((0, depth))
    parts = [search(slices) for slices in z_ranges(depth, count)]
    assert len(expected) > 0
    joined = collect_peaks([peaks for peaks, _ in parts])
    check_same(joined, expected)
    slabs = [slab for _, slabs in parts for slab in slabs]
    assert [s.z_start for s in slabs] == [0, *np.cumsum([s.heatmap.shape[1] for s in slabs])[:-1].tolist()]
    np.testing.assert_array_equal(*(np.concatenate([np.asarray(s.heatmap) for s in every], axis=1)
                                    for every in (slabs, whole)))  # fmt: skip
    picks = picks_of_peaks(joined, volume.name, volume.grid, TYPES, config, mask=mask)
    alone = find_picks(volume, MODELS, TYPES, config=config, floor=0.1, mask=mask)
    np.testing.assert_array_equal(picks.xyz_angstrom, alone.xyz_angstrom)
    np.testing.assert_array_equal(picks.score, alone.score)


@pytest.mark.slow
def test_a_range_computes_the_windows_that_reach_into_it_and_says_which_it_left_out() -> None:
    volume = volume_of(64, gaps=True)
    said: list[str] = []
    totals: list[int] = []
    for slices in ((0, 64), (48, 64)):
        peaks_of_slices(
            volume, MODELS, TYPES, slices, config=InferenceConfig(), note=said.append,
            on_windows=lambda done, total: totals.append(total),
        )  # fmt: skip
    assert 2 * min(totals) < max(totals)
    whole, part = said
    assert "slices" not in whole and part.endswith("(slices 48 to 63)")


@pytest.mark.parametrize("slices", [(0, 0), (24, 24)])
def test_an_empty_range_is_nothing(slices: tuple[int, int]) -> None:
    volume = volume_of(40, gaps=False)
    assert len(peaks_of_slices(volume, MODELS, TYPES, slices, config=InferenceConfig())) == 0
