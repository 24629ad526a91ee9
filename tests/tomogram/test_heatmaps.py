"""Heatmaps written slab by slab are those that came, in half precision, and appear whole or not at all."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import zarr

from jaxcryo.domain import ParticleType, VoxelGrid
from jaxcryo.tomogram.heatmaps import heatmap_writer

TYPES = (
    ParticleType(name="small", radius_angstrom=60.0, color=(255, 0, 10)),
    ParticleType(name="large", radius_angstrom=150.0),
)
GRID = VoxelGrid(shape_zyx=(70, 9, 140), spacing_zyx_angstrom=(10.0, 11.0, 12.0))


@pytest.mark.parametrize("heights", [[70], [8] * 8 + [6], [1, 40, 29], [32, 32, 6]])
def test_what_comes_is_what_is_read(tmp_path: pathlib.Path, heights: list[int]) -> None:
    heatmap = np.random.default_rng(0).random((2, *GRID.shape_zyx), np.float32)
    with heatmap_writer(tmp_path / "run.zarr", GRID, TYPES) as write:
        z = 0
        for height in heights:
            write(z, heatmap[:, z : z + height])
            z += height
    group = zarr.open_group(tmp_path / "run.zarr", mode="r")
    array = group["0"]
    assert isinstance(array, zarr.Array)
    assert (array.dtype, array.chunks) == (np.float16, (1, 32, 9, 128))
    np.testing.assert_array_equal(array[:], heatmap.astype(np.float16))
    scale = group.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]  # type: ignore[index, call-overload]
    assert scale == [1.0, 10.0, 11.0, 12.0]
    channels = group.attrs["omero"]["channels"]  # type: ignore[index, call-overload]
    assert [c["label"] for c in channels] == ["small", "large"]  # type: ignore[index, union-attr]
    assert channels[0]["color"] == "FF000A"  # type: ignore[index, call-overload]


def test_nothing_stays_of_a_failed_run(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RuntimeError), heatmap_writer(tmp_path / "run.zarr", GRID, TYPES) as write:
        write(0, np.zeros((2, 40, 9, 140), np.float32))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
