"""Picks outside of a mask are dropped, whatever its grid."""

from __future__ import annotations

import pathlib

import mrcfile
import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.project.mask import check_mask, inside, open_mask
from jaxcryo.tomogram.volumes import write_ome_zarr

GRID = VoxelGrid(shape_zyx=(70, 20, 30), spacing_zyx_angstrom=(10, 10, 10))


def picks_at(zyx: list[tuple[float, float, float]]) -> Picks:
    return Picks(
        run="R", types=CZII_TYPES, xyz_angstrom=GRID.to_angstrom(np.array(zyx)), type_index=np.zeros(len(zyx), np.int64)
    )


def test_the_nearest_voxel_decides(tmp_path: pathlib.Path) -> None:
    voxels = np.zeros(GRID.shape_zyx, np.float32)
    voxels[40, 5, 6] = voxels[69, 19, 29] = 1
    voxels[3, 3, 3] = -1
    write_ome_zarr(tmp_path / "m.zarr", voxels, (10.0, 10.0, 10.0), levels=1)
    mask = open_mask(tmp_path / "m.zarr", "R", GRID)
    picks = picks_at([(40, 5, 6), (40.4, 5.4, 5.6), (41, 5, 6), (69, 19, 29), (70, 19, 29), (-1, 0, 0), (3, 3, 3)])
    np.testing.assert_array_equal(inside(picks, mask).xyz_angstrom, picks.xyz_angstrom[[0, 1, 3]])
    assert len(inside(picks.select(np.zeros(0, np.int64)), mask)) == 0


def test_a_header_without_spacing_on_the_tomograms_grid(tmp_path: pathlib.Path) -> None:
    with mrcfile.new(tmp_path / "R.mrc") as mrc:
        mrc.set_data(np.ones(GRID.shape_zyx, np.int8))
    assert open_mask(tmp_path / "R.mrc", "R", GRID).grid == GRID
    assert open_mask(tmp_path, "R", GRID).grid == GRID
    with pytest.raises(InputError, match="has no run Q; its runs are R"):
        open_mask(tmp_path, "Q", GRID)


def test_another_spacing(tmp_path: pathlib.Path) -> None:
    voxels = np.zeros((35, 10, 15), np.float32)
    voxels[:10] = 1
    write_ome_zarr(tmp_path / "m.zarr", voxels, (20.0, 20.0, 20.0), levels=1)
    mask = open_mask(tmp_path / "m.zarr", "R", GRID)
    assert len(inside(picks_at([(10, 5, 5), (30, 5, 5)]), mask)) == 1


def test_no_mask(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="expected a mask"):
        check_mask(tmp_path / "none.mrc")
