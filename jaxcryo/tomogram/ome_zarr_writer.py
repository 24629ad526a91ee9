"""OME-Zarr: writing a tomogram as a multiscale image."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.files import atomic_path

_CHUNK_SIZE = 64


def write_ome_zarr(
    path: str | pathlib.Path,
    voxels: Float[NDArray[np.float32], "..."],
    spacing_zyx_angstrom: Sequence[float],
    *,
    levels: int = 3,
) -> None:
    """Writes a tomogram as OME-Zarr 0.4 (zarr format 2, float32, arrays `0`, `1`, …), atomically.

    Each level averages blocks of two voxels along every axis; an odd size loses its last slice on the way, an axis
    of size 1 stays. A level's translation puts its first voxel in the middle of the block that it averages.

    Raises:
        InputError: the voxels do not have three axes, or the folder cannot be written.
    """
    if voxels.ndim != 3 or voxels.size == 0:
        raise InputError(f"{path}: cannot write voxels of shape {voxels.shape}; expected three sizes above 0 (z, y, x)")
    compressor = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
    datasets: list[Any] = []
    scale = np.asarray(spacing_zyx_angstrom, np.float64)
    translation = np.zeros(3)
    with atomic_path(path) as fresh:
        group = zarr.open_group(fresh, mode="w", zarr_format=2)
        level_voxels = np.asarray(voxels, np.float32)
        for level in range(levels):
            array = group.create_array(
                str(level),
                shape=level_voxels.shape,
                chunks=tuple(min(_CHUNK_SIZE, n) for n in level_voxels.shape),
                dtype="float32",
                compressors=compressor,
                chunk_key_encoding={"name": "v2", "separator": "/"},
                fill_value=0.0,
                config={"write_empty_chunks": True},
            )
            array[:] = level_voxels
            transforms = [
                {"type": "scale", "scale": scale.tolist()},
                {"type": "translation", "translation": translation.tolist()},
            ]
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
            if level + 1 < levels:
                level_voxels, factor = _halve(level_voxels)
                translation = translation + (factor - 1) / 2 * scale
                scale = scale * factor
        group.attrs["multiscales"] = [
            {
                "version": "0.4",
                "name": "/",
                "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
                "datasets": datasets,
            }
        ]


def _halve(
    voxels: Float[NDArray[np.float32], "z y x"],
) -> tuple[Float[NDArray[np.float32], "z2 y2 x2"], Float[NDArray[np.float64], " 3"]]:
    """The means of blocks of two, and the factor of each axis (1 where there is a single slice)."""
    factors = [2 if n > 1 else 1 for n in voxels.shape]
    for axis, factor in enumerate(factors):
        if factor == 2:
            pairs = voxels.shape[axis] // 2 * 2
            even, odd = (voxels[(slice(None),) * axis + (slice(i, pairs, 2),)] for i in (0, 1))
            voxels = (even + odd) * np.float32(0.5)
    return voxels, np.asarray(factors, np.float64)
