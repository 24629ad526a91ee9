"""Grids, types and picks: the two directions invert each other, bad input is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid, concatenate_picks
from jaxcryo.errors import InputError
from jaxcryo.serialize import types_from_json, types_to_json

GRID = VoxelGrid(shape_zyx=(184, 630, 630), spacing_zyx_angstrom=(10.012444, 10.012444, 10.012445))
position = st.tuples(*[st.floats(0, 6000)] * 3)


@given(st.lists(position, min_size=1, max_size=5))
def test_voxel_and_angstrom_invert_each_other(xyz: list[tuple[float, float, float]]) -> None:
    np.testing.assert_allclose(GRID.to_angstrom(GRID.to_voxel(xyz)), xyz, atol=1e-9)


def test_reported_voxel_follows_the_paper() -> None:
    np.testing.assert_allclose(GRID.to_angstrom([[3, 5, 7]]), [[6.5 * 10.012445, 4.5 * 10.012444, 2.5 * 10.012444]])


def test_label_voxel_is_the_published_truncation() -> None:
    xyz = np.random.default_rng(0).uniform(0, 1800, (100, 3))
    expected = [[int(z / 10.012444 + 1), int(y / 10.012444 + 1), int(x / 10.012445 + 1)] for x, y, z in xyz]
    np.testing.assert_array_equal(GRID.to_label_voxel(xyz), expected)


def test_sub_voxel_position_is_within_half_a_voxel_of_the_label() -> None:
    xyz = np.random.default_rng(1).uniform(0, 1800, (100, 3))
    assert np.abs(GRID.to_voxel(xyz) - GRID.to_label_voxel(xyz)).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
def test_impossible_spacing_is_refused(spacing: float) -> None:
    with pytest.raises(InputError, match="--voxel-spacing"):
        VoxelGrid(shape_zyx=(4, 4, 4), spacing_zyx_angstrom=(spacing,) * 3)


def test_types_survive_json() -> None:
    assert types_from_json(json.loads(json.dumps(types_to_json(CZII_TYPES)))) == CZII_TYPES


def test_infinite_voxels_are_refused_and_empty_ones_kept() -> None:
    voxels = np.zeros((4, 4, 4), np.float32)
    voxels[2, 1, 1] = np.nan
    grid = VoxelGrid(shape_zyx=(4, 4, 4), spacing_zyx_angstrom=(10.0,) * 3)
    volume = Volume(name="TS_1", voxels=voxels, grid=grid)
    assert volume.read(0, 2).shape == (2, 4, 4)
    assert np.isnan(volume.load()).sum() == 1
    voxels[2, 1, 1] = np.inf
    with pytest.raises(InputError, match=r"TS_1.*\b1\b.*infinite"):
        volume.load()


def test_picks_select_and_concatenate() -> None:
    picks = Picks(
        run="a", types=CZII_TYPES, xyz_angstrom=np.arange(9.0).reshape(3, 3), type_index=np.array([0, 1, 0]),
        score=np.array([0.1, 0.2, 0.3]),
    )  # fmt: skip
    assert picks.of_type(0).tolist() == [[0, 1, 2], [6, 7, 8]]
    both = concatenate_picks([picks.select(np.array([2])), picks.select(picks.type_index == 1)], "a", CZII_TYPES)
    assert both.score is not None and both.score.tolist() == [0.3, 0.2]
    assert len(concatenate_picks([], "a", CZII_TYPES)) == 0


def test_a_grid_in_the_frame_of_another_covers_the_same_box() -> None:
    other = VoxelGrid(shape_zyx=(80, 90, 100), spacing_zyx_angstrom=(7.84, 7.84, 7.9))
    grid = VoxelGrid(shape_zyx=(61, 70, 79), spacing_zyx_angstrom=(10.012444,) * 3).in_frame_of(other)
    corner = [[-0.5] * 3]
    np.testing.assert_allclose(grid.to_angstrom(corner), other.to_angstrom(corner))
    zyx = np.random.default_rng(0).uniform(0, 60, (20, 3))
    expected = (zyx + 0.5) * 10.012444 / np.array([7.84, 7.84, 7.9]) - 0.5
    np.testing.assert_allclose(other.to_voxel(grid.to_angstrom(zyx)), expected)
    np.testing.assert_allclose(grid.to_voxel(grid.to_angstrom(zyx)), zyx)
    assert other.in_frame_of(other) == other
