"""A volume on a grid of another voxel spacing, computed slab by slab as it is read.

Both grids cover the same box: voxel j of the new one lies at (j + 1/2) · s' / s - 1/2 of the old one. Along each axis
a new voxel is a weighted mean of old ones by `_kernel`, which is stretched if voxels become larger, to avoid aliasing.
Positions are counted from the corner of that box, so a network trained at the new spacing finds the same physical
positions whatever the old spacing is. Voxels without data have no weight; where they would have more than half of it,
the new voxel has no data either.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError

_SLICES = 8
"""Most bytes of the old volume in memory at a time."""
_SUPPORT = 2.0
_LARGEST_FACTOR = 64.0


def resampled(volume: Volume, spacing_angstrom: float) -> Volume:
    """The volume at a voxel spacing, the same along all axes; voxels are computed when they are read.

    Raises:
        InputError: the spacings are too far apart for both to be right.
    """
    grid = volume.grid
    factors = tuple(spacing_angstrom / s for s in grid.spacing_zyx_angstrom)
    if not all(1 / _LARGEST_FACTOR <= f <= _LARGEST_FACTOR for f in factors):
        raise InputError(
            f"{volume.name}: its voxels are {grid.spacing_angstrom:g} Å, which cannot be resampled to "
            f"{spacing_angstrom:g} Å; expected a spacing of that order: pass the true one with --voxel-spacing"
        )
    z, y, x = (max(round(n / f), 1) for n, f in zip(grid.shape_zyx, factors, strict=True))
    fresh = dataclasses.replace(grid, shape_zyx=(z, y, x), spacing_zyx_angstrom=(spacing_angstrom,) * 3)
    voxels = _Resampled(
        source=volume,
        shape=(z, y, x),
        weights=tuple(
            _weights(size, count, factor)
            for size, count, factor in zip(grid.shape_zyx, (z, y, x), factors, strict=True)
        ),
    )
    return Volume(name=volume.name, voxels=voxels, grid=fresh, has_gaps=volume.has_gaps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Resampled:
    source: Volume
    shape: tuple[int, int, int]
    weights: tuple[Any, ...]
    """A sparse matrix for each axis: new voxels by old ones."""

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Float[NDArray[np.float32], "z y x"]:
        """A box, from slices of step 1. Only what the box needs is read from the source."""
        along = [self.weights[axis][slice(*s.indices(self.shape[axis]))] for axis, s in enumerate(key)]
        spans = [_span(m) for m in along]
        z, y, x = (m[:, span] for m, span in zip(along, spans, strict=True))

        def add(box: Float[NDArray[np.float32], "z y x"], slices: Float[NDArray[np.float32], "s y2 x2"]) -> None:
            part = np.stack([y @ (x @ one.T).T for one in slices])
            box[touched] += (share[touched] @ part.reshape(len(part), -1)).reshape(len(touched), *box.shape[1:])

        box = np.zeros((z.shape[0], y.shape[0], x.shape[0]), np.float32)
        weight = np.zeros_like(box) if self.source.has_gaps else None
        for first in range(spans[0].start, spans[0].stop, _SLICES):
            last = min(first + _SLICES, spans[0].stop)
            slices = self.source.read_box(slice(first, last), spans[1], spans[2])
            share = z[:, first - spans[0].start : last - spans[0].start]
            touched = np.flatnonzero(np.diff(share.indptr))
            if weight is None:
                add(box, slices)
            else:
                data = ~np.isnan(slices)
                add(box, np.where(data, slices, np.float32(0)))
                add(weight, data.astype(np.float32))
        return box if weight is None else np.where(weight > 0.5, box / np.maximum(weight, 0.5), np.float32(np.nan))


def _weights(size: int, count: int, factor: float) -> Any:
    """Rows of weights that add up to 1; positions beyond the volume have none."""
    stretch = max(factor, 1.0)
    centers = (np.arange(count) + 0.5) * factor - 0.5
    reach = math.ceil(_SUPPORT * stretch)
    taps = np.floor(centers)[:, None].astype(np.int64) + np.arange(-reach, reach + 1)
    values = _kernel((taps - centers[:, None]) / stretch) * ((taps >= 0) & (taps < size))
    values /= values.sum(axis=1, keepdims=True)
    used = np.abs(values) > 0
    rows = np.repeat(np.arange(count), used.sum(axis=1))
    return scipy.sparse.csr_array((values[used].astype(np.float32), (rows, taps[used])), shape=(count, size))


def _kernel(distance: Float[NDArray[np.float64], "..."]) -> Float[NDArray[np.float64], "..."]:
    """Keys's cubic convolution (a = -1/2): linear functions stay as they are, and edges blur little."""
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _span(weights: Any) -> slice:
    """The old voxels that have a weight."""
    if not weights.nnz:
        return slice(0, 1)
    return slice(int(weights.indices.min()), int(weights.indices.max()) + 1)
