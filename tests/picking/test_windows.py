"""Windows cover the volume, and their weights add up as the factors say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter

from jaxcryo.errors import InputError
from jaxcryo.picking.windows import plan_axis, plan_windows, weight_sums, window_weight, windows_that_reach


def test_the_paper_s_grids() -> None:
    yu4u = plan_windows((184, 630, 630), (16, 128, 128), (8, 48, 48))
    assert [len(axis.starts) for axis in (yu4u.z, yu4u.y, yu4u.x)] == [22, 12, 12]
    assert (yu4u.y.padded, yu4u.y.pad_before, yu4u.z.padded) == (656, 13, 184)
    assert yu4u.count == 3168
    tattaka = plan_windows((184, 630, 630), (32, 128, 128), (16, 48, 48))
    assert (len(tattaka.z.starts), tattaka.z.padded, tattaka.z.pad_before, tattaka.count) == (11, 192, 4, 1584)


@given(st.data())
def test_windows_cover_every_voxel_and_overhang_as_little_as_they_can(data: st.DataObject) -> None:
    window = data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, window))
    size = data.draw(st.integers(window, 200))
    plan = plan_axis(size, window, stride)
    covered = np.zeros(plan.padded, bool)
    for start in plan.starts:
        covered[start : start + window] = True
    assert covered.all()
    after = plan.padded - size - plan.pad_before
    assert 0 <= after - plan.pad_before <= 1
    assert plan.padded - size < stride


def test_weight_is_one_at_the_center_and_falls_linearly_to_just_above_zero() -> None:
    weight = window_weight((4, 9, 7))
    assert weight.max() == 1
    assert weight[1, 4, 3] == weight[2, 4, 3] == 1
    assert weight.min() > 0
    np.testing.assert_allclose(np.diff(weight[1, 4, :4], 2), 0, atol=1e-6)
    np.testing.assert_array_equal(weight, weight[::-1, ::-1, ::-1])
    y, x = weight[1, :, 3], weight[1, 4, :]
    np.testing.assert_allclose(weight[1], np.minimum(y[:, None], x[None]), atol=1e-6)


def test_weight_sums_are_the_sum_over_all_windows() -> None:
    plan = plan_windows((11, 30, 27), (6, 12, 10), (3, 5, 4))
    summed = np.zeros((plan.z.padded, plan.y.padded, plan.x.padded))
    for z, y, x in itertools.product(plan.z.starts, plan.y.starts, plan.x.starts):
        summed[z : z + 6, y : y + 12, x : x + 10] += window_weight(plan.patch_zyx)
    z_profile, yx_map = weight_sums(plan)
    np.testing.assert_allclose(z_profile[:, None, None] * yx_map, summed, rtol=1e-5)
    assert summed.min() > 0


def test_a_volume_smaller_than_a_window_is_padded_to_one_on_both_sides() -> None:
    plan = plan_windows((44, 136, 84), (32, 128, 128), (16, 48, 48))
    assert plan.x.starts == (0,) and (plan.x.pad_before, plan.x.padded) == (22, 128)
    assert plan.count == len(plan.z.starts) * len(plan.y.starts)
    with pytest.raises(InputError, match=r"3×128×128 .* 16×128×128.*smaller windows"):
        plan_windows((3, 128, 128), (16, 128, 128), (8, 48, 48))


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_that_leaves_voxels_out_is_refused(stride: int) -> None:
    with pytest.raises(InputError, match=r"\b1\b.*\b16\b"):
        plan_axis(100, 16, stride)


@pytest.mark.parametrize("margin", [0, 3])
def test_windows_that_reach_a_region_are_those_that_cover_a_voxel_of_it(margin: int) -> None:
    rng = np.random.default_rng(0)
    plan = plan_windows((21, 34, 29), (8, 16, 12), (4, 6, 5))
    for density in (0.0, 1e-4, 1e-3, 0.5):
        region = rng.random((21, 34, 29)) < density
        padded = [(a.pad_before, a.padded - a.size - a.pad_before) for a in (plan.z, plan.y, plan.x)]
        grown = np.pad(maximum_filter(region, 2 * margin + 1, mode="constant"), padded)
        expected = [
            [grown[z : z + 8, y : y + 16, x : x + 12].any() for y, x in plan.starts_yx()] for z in plan.z.starts
        ]
        chosen = windows_that_reach(plan, lambda a, b, r=region: r[a:b], margin=margin)
        np.testing.assert_array_equal(chosen, expected)
