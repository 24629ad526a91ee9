"""Masks: volumes whose voxels above 0 are the region to pick in."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.project.dataset import find_runs
from jaxcryo.stores.address import Location
from jaxcryo.tomogram.axes import turned
from jaxcryo.tomogram.volumes import is_tomogram, open_volume

_SLICES = 32


def mask_place(path: str | pathlib.Path, run: str) -> Location:
    """Where the mask of a run is: the volume at `path`, or the one of the run's name in a folder of volumes.

    Raises:
        InputError: the folder has none for this run.
    """
    path = pathlib.Path(path)
    if not path.is_dir() or is_tomogram(path):
        return path
    (place,) = (r.volume_path for r in find_runs(path, names=[run]))
    return place


def open_mask(path: str | pathlib.Path, run: str, grid: VoxelGrid) -> Volume:
    """The mask of a run, at `mask_place`.

    A mask of the tomogram's shape is taken to lie on its grid, whatever its header says. Any other mask keeps its own
    grid, over the same box.

    Raises:
        InputError: the folder has none for this run, or it cannot be opened.
    """
    place = mask_place(path, run)
    name = f"mask of {run}"
    # Bytes of a mask are unsigned: 255 is above 0, as 1 is.
    mask = open_volume(place, name=name, spacing_angstrom=grid.spacing_angstrom, bytes_are="unsigned")
    mask = turned(mask, grid.axes)
    if mask.grid.shape_zyx == grid.shape_zyx:
        return Volume(name=mask.name, voxels=mask.voxels, grid=grid)
    return turned(open_volume(place, name=name, bytes_are="unsigned"), grid.axes)


def inside(picks: Picks, mask: Volume) -> Picks:
    """The picks whose nearest voxel of the mask is above 0; picks outside the mask's volume are dropped.

    Reads only the slices around picks, a few at a time.

    Raises:
        InputError: the mask cannot be read, or is infinite.
    """
    zyx = np.rint(mask.grid.to_voxel(picks.xyz_angstrom)).astype(np.int64)
    within = np.flatnonzero(np.all((zyx >= 0) & (zyx < mask.grid.shape_zyx), axis=1))
    keep = np.zeros(len(picks), np.bool_)
    for block in np.unique(zyx[within, 0] // _SLICES).tolist():
        start = block * _SLICES
        members = within[zyx[within, 0] // _SLICES == block]
        voxels = mask.read(start, min(start + _SLICES, mask.grid.shape_zyx[0]))
        z, y, x = zyx[members].T
        keep[members] = voxels[z - start, y, x] > 0
    return picks.select(keep)


def inside_on_grid(mask: Volume, grid: VoxelGrid) -> Volume:
    """The mask seen in another grid's voxels: 1 where `inside` would keep a pick at that voxel, 0 elsewhere."""
    own: list[NDArray[np.int64]] = []
    for axis, count in enumerate(grid.shape_zyx):
        along = np.zeros((count, 3))
        along[:, axis] = np.arange(count)
        own.append(np.rint(mask.grid.to_voxel(grid.to_angstrom(along))[:, axis]).astype(np.int64))
    return Volume(name=mask.name, voxels=_Seen(mask=mask, own=tuple(own)), grid=grid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Seen:
    mask: Volume
    own: tuple[NDArray[np.int64], ...]
    """The mask's voxel at each voxel of the grid, along each axis; none outside the mask's volume."""

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Float[NDArray[np.float32], "z y x"]:
        z, y, x = (own[s] for own, s in zip(self.own, key, strict=True))
        sizes = self.mask.grid.shape_zyx
        there = [(own >= 0) & (own < n) for own, n in zip((z, y, x), sizes, strict=True)]
        seen = np.zeros((len(z), len(y), len(x)), np.float32)
        if there[0].any():
            first = int(z[there[0]].min())
            voxels = self.mask.read(first, int(z[there[0]].max()) + 1)
            seen[np.ix_(*there)] = voxels[np.ix_(z[there[0]] - first, y[there[1]], x[there[2]])] > 0
        return seen


def check_mask(path: str | pathlib.Path) -> None:
    """Raises InputError if nothing exists at the path."""
    if not pathlib.Path(path).exists():
        raise InputError(f"{path}: does not exist; expected a mask: a tomogram's file, or a folder of one for each run")
