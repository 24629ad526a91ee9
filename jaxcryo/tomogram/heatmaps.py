"""Heatmaps on disk, written slab by slab: OME-Zarr 0.4 in half precision, a channel for each particle type."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from jaxcryo.domain import ParticleType, VoxelGrid
from jaxcryo.files import atomic_path

_CHUNK = (32, 128, 128)

WriteSlices = Callable[[int, Float[ArrayLike, "c z y x"]], None]
"""Takes the z of the first slice, in voxels of the volume, and the slices; called in order through the volume."""


@contextlib.contextmanager
def heatmap_writer(path: str | pathlib.Path, grid: VoxelGrid, types: Sequence[ParticleType]) -> Iterator[WriteSlices]:
    """A function that writes slices; the folder appears when the block ends without an error.

    Holds one row of chunks. Arrays are c, z, y, x; channels have the names and colors of the types.

    Raises:
        InputError: the folder cannot be written.
    """
    depth, height, width = grid.shape_zyx
    chunks = tuple(min(c, n) for c, n in zip(_CHUNK, grid.shape_zyx, strict=True))
    with atomic_path(path) as fresh:
        group = zarr.open_group(fresh, mode="w", zarr_format=2)
        array = group.create_array(
            "0",
            shape=(len(types), *grid.shape_zyx),
            chunks=(1, *chunks),
            dtype="float16",
            compressors=numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0.0,
            config={"write_empty_chunks": True},
        )
        group.attrs.update(_metadata(grid, types))
        row: NDArray[np.float16] = np.zeros((len(types), chunks[0], height, width), np.float16)
        written = 0

        def write(z_start: int, heatmap: Float[ArrayLike, "c z y x"]) -> None:
            nonlocal written
            assert z_start == written, "slabs come in ascending order and without gaps"
            slices = np.asarray(heatmap).astype(np.float16)
            while slices.shape[1]:
                at = written % chunks[0]
                count = min(chunks[0] - at, slices.shape[1])
                row[:, at : at + count] = slices[:, :count]
                slices, written = slices[:, count:], written + count
                if at + count == chunks[0] or written == depth:
                    array[:, written - at - count : written] = row[:, : at + count]

        yield write
        assert written == depth, "the heatmap of the whole volume was written"


def _metadata(grid: VoxelGrid, types: Sequence[ParticleType]) -> dict[str, Any]:
    scale = [1.0, *grid.spacing_zyx_angstrom]
    space = [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"]
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": "heatmaps",
                "axes": [{"name": "c", "type": "channel"}, *space],
                "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
            }
        ],
        "omero": {
            "channels": [
                {
                    "label": t.name,
                    "color": "{:02X}{:02X}{:02X}".format(*t.color),
                    "window": {"min": 0.0, "start": 0.0, "end": 1.0, "max": 1.0},
                    "active": True,
                }
                for t in types
            ]
        },
    }
