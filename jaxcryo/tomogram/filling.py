"""Where a tomogram holds no data: the filling that programs write beyond the tilted specimen or outside a mask.

Such filling is one exact value over a region: zero, the mean, the mean of the slice, the last voxel of a row repeated,
or NaN. Eight-bit voxels are often equal by chance; filling differs in its long runs of equal voxels along a row or a
column, which noise does not make. Equal voxels that adjoin such runs belong to it. From here on, a voxel without data
is NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

RUN = 16
"""So many equal voxels in a row or a column may be filling: only a flat region makes a run this long."""
_REACH = 2 * RUN - 1
"""How far away in the plane voxels decide about another one."""
_SHORTEST_AXIS = 8


def in_runs(voxels: Float[NDArray[np.float32], "z y x"]) -> Bool[NDArray[np.bool_], "z y x"]:
    """Which voxels belong to a run of equal ones along y or x; NaN equals nothing."""
    found = np.zeros(voxels.shape, np.bool_)
    for axis in (1, 2):
        along = np.moveaxis(voxels, axis, -1)
        size = along.shape[-1]
        length = min(RUN, size)
        if size < _SHORTEST_AXIS:
            continue
        starts, span = along[..., 1:] == along[..., :-1], 1
        while span < length - 1:
            step = min(span, length - 1 - span)
            starts, span = starts[..., :-step] & starts[..., step:], span + step
        if not starts.any():
            continue
        covered = np.zeros(along.shape, np.bool_)
        covered[..., : starts.shape[-1]] = starts
        span = 1
        while span < length:
            step = min(span, length - span)
            covered[..., step:] |= covered[..., :-step].copy()
            span += step
        np.moveaxis(found, axis, -1)[...] |= covered
    return found


def grown(
    found: Bool[NDArray[np.bool_], "z y x"], voxels: Float[NDArray[np.float32], "z y x"]
) -> Bool[NDArray[np.bool_], "z y x"]:
    """Runs with the equal voxels that adjoin them, as in the tip of a slanted corner."""
    pairs = []
    for axis in (1, 2):
        along = np.moveaxis(voxels, axis, -1)
        pairs.append((axis, along[..., 1:] == along[..., :-1]))
    count = np.count_nonzero(found)
    for _ in range(RUN):
        fresh = found.copy()
        for axis, equal in pairs:
            before, after = np.moveaxis(found, axis, -1), np.moveaxis(fresh, axis, -1)
            after[..., 1:] |= equal & before[..., :-1]
            after[..., :-1] |= equal & before[..., 1:]
        found, previous = fresh, count
        count = np.count_nonzero(found)
        if count == previous:
            break
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Emptied:
    """An array whose filling reads as NaN; indexed by three slices of step 1."""

    array: Any
    values: Mapping[int, Float[NDArray[np.float32], " n"]]
    """The filling's values in each slice that has some."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        return getattr(self.array, "chunks", None)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Float[NDArray[np.float32], "z y x"]:
        spans = [range(*s.indices(n)) for s, n in zip(key, self.shape, strict=True)]
        wide = [slice(max(s.start - _REACH, 0), s.stop + _REACH) for s in spans[1:]]
        box = np.array(self.array[slice(spans[0].start, spans[0].stop), wide[0], wide[1]], np.float32)
        for place, z in enumerate(spans[0]):
            values = self.values.get(z)
            if values is not None:
                one = box[place : place + 1]
                one[grown(in_runs(one) & np.isin(one, values), one)] = np.nan
        y, x = (slice(s.start - w.start, s.stop - w.start) for s, w in zip(spans[1:], wide, strict=True))
        return box[:, y, x]
