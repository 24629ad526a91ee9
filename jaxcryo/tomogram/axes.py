"""Tomograms whose axes are in another order than x, y, and the thickness along z."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxcryo.domain import Volume

_MUCH = 1.5
"""A tomogram whose z is this many times longer than its shortest axis lies on its side."""


def turned(volume: Volume, axes: str) -> Volume:
    """The volume with the axes of its file in another order, computed as it is read; positions stay the file's.

    `axes` says which of the file's axes become x, y and z: `xzy` for a reconstruction whose thickness lies along y.

    Raises:
        InputError: `axes` is not an order of x, y and z.
    """
    grid = dataclasses.replace(volume.grid, axes=axes)
    order = tuple(2 - "xyz".index(axis) for axis in axes[::-1])
    if order == (0, 1, 2):
        return volume
    z, y, x = (volume.grid.shape_zyx[axis] for axis in order)
    dz, dy, dx = (volume.grid.spacing_zyx_angstrom[axis] for axis in order)
    origin = volume.grid.origin_xyz_angstrom
    ox, oy, oz = (origin["xyz".index(axis)] for axis in axes)
    grid = dataclasses.replace(
        grid, shape_zyx=(z, y, x), spacing_zyx_angstrom=(dz, dy, dx), origin_xyz_angstrom=(ox, oy, oz)
    )
    return Volume(name=volume.name, voxels=_Turned(array=volume.voxels, order=order), grid=grid)


def advice(volume: Volume) -> str | None:
    """A sentence on a volume whose shortest axis is not z; None if it seems to lie flat."""
    z, y, x = volume.grid.shape_zyx
    name, shortest = min((("x", x), ("y", y)), key=lambda pair: pair[1])
    if z < _MUCH * shortest:
        return None
    order = "xzy" if name == "y" else "zyx"
    return (
        f"{volume.name}: its shortest axis is {name} ({x} × {y} × {z} voxels, x, y, z), as in a reconstruction that "
        f"was not turned: if its thickness lies along {name}, pass --axes {order} (picks stay in the file's own "
        "coordinates; --axes xyz says that it is right as it is)"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Turned:
    """An array with its axes in another order; slicing reads."""

    array: Any
    order: tuple[int, ...]
    """The array's axis that each axis is."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[axis] for axis in self.order)

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        chunks = getattr(self.array, "chunks", None)
        return None if chunks is None or len(chunks) != 3 else tuple(chunks[axis] for axis in self.order)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        own = tuple(key[self.order.index(axis)] for axis in range(3))
        return np.asarray(self.array[own]).transpose(self.order)
