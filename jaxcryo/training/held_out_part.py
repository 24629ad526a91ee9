"""Training and validation on a single tomogram: a part of it is held out, with a margin between the two."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Picks, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.training.source import Example

Choose = Callable[[Picks, VoxelGrid], NDArray[np.bool_]]
"""Which picks belong to a part."""
_SHARE = 0.25
"""The share of an axis that is held out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """A tomogram in two parts."""

    training: Example
    held_out: Example
    about: str
    """A sentence on where it was cut."""


def held_out_part(example: Example, patch_zyx: tuple[int, int, int]) -> Parts:
    """Holds out a quarter at one end of x, y or z, so that the training keeps picks of as many types as it can.

    Between the parts lies a margin as wide as the largest particle, of which neither part has a voxel. Particles with
    their center in the margin belong to the training part if they reach into it, else to neither.

    Raises:
        InputError: no axis has room for a window to train on and half a window to validate on.
    """
    grid, picks = example.volume.grid, example.picks
    margin = 2 * max(t.radius_angstrom for t in picks.types)
    best: tuple[tuple[float, ...], str, list[tuple[int, int]], list[tuple[int, int]]] | None = None
    for axis, at_end in itertools.product((2, 1, 0), (True, False)):
        length, gap = grid.shape_zyx[axis], int(np.ceil(margin / grid.spacing_zyx_angstrom[axis]))
        held = max(round(_SHARE * length), -(-patch_zyx[axis] // 2))
        kept = length - gap - held
        if kept < patch_zyx[axis]:
            continue
        ranges = [[(0, n) for n in grid.shape_zyx] for _ in range(2)]
        ranges[0][axis] = (0, kept) if at_end else (length - kept, length)
        ranges[1][axis] = (length - held, length) if at_end else (0, held)
        learned, measured = _reaching_into(picks, _box(grid, ranges[0])), _inside(picks, _box(grid, ranges[1]))
        missing = len(set(picks.type_index.tolist()) - set(picks.type_index[learned].tolist()))
        off = abs(measured.sum() / max(len(picks), 1) - _SHARE)
        cost = (missing, not measured.any(), off)
        if best is None or cost < best[0]:
            first, last = ranges[1][axis]
            about = (
                f"{example.volume.name}: {'zyx'[axis]} from {first} to {last - 1} (voxels) is held out with "
                f"{int(measured.sum())} picks; {int(learned.sum())} are learned, and "
                f"{len(picks) - int((learned | measured).sum())} in a margin of {gap} voxels belong to neither part"
            )
            best = (cost, about, ranges[0], ranges[1])
    if best is None:
        raise InputError(
            f"{example.volume.name}: its {' × '.join(map(str, grid.shape_zyx))} voxels (z, y, x) are too few to hold "
            f"out a part, which needs one and a half windows of {' × '.join(map(str, patch_zyx))} and {margin:g} Å "
            "between them along one axis; add a second tomogram"
        )
    _, about, learned_ranges, held_ranges = best
    return Parts(
        training=_cut(example, learned_ranges, "training part", _reaching_into),
        held_out=_cut(example, held_ranges, "held-out part", _inside),
        about=about,
    )


def _cut(example: Example, ranges: list[tuple[int, int]], name: str, choose: Choose) -> Example:
    grid = _box(example.volume.grid, ranges)
    called = f"{example.volume.name} {name}"
    volume = dataclasses.replace(
        example.volume, name=called, grid=grid, voxels=_Part(array=example.volume.voxels, ranges=tuple(ranges))
    )
    marks = example.marks
    if marks is not None:
        marks = dataclasses.replace(marks, none=marks.none.select(_inside(marks.none, grid)))
    picks = example.picks.select(choose(example.picks, grid))
    return dataclasses.replace(example, volume=volume, picks=dataclasses.replace(picks, run=called), marks=marks)


def _box(grid: VoxelGrid, ranges: list[tuple[int, int]]) -> VoxelGrid:
    """The grid of a box of voxels; positions stay those of the whole."""
    starts = [low for low, _ in ranges][::-1]
    x, y, z = (
        origin + start * spacing
        for origin, start, spacing in zip(
            grid.origin_xyz_angstrom, starts, grid.spacing_zyx_angstrom[::-1], strict=True
        )
    )
    depth, height, width = (high - low for low, high in ranges)
    return dataclasses.replace(grid, shape_zyx=(depth, height, width), origin_xyz_angstrom=(x, y, z))


def _inside(picks: Picks, grid: VoxelGrid) -> NDArray[np.bool_]:
    return grid.contains(grid.to_voxel(picks.xyz_angstrom))


def _reaching_into(picks: Picks, grid: VoxelGrid) -> NDArray[np.bool_]:
    """Includes those whose center is outside by less than a radius."""
    zyx = grid.to_voxel(picks.xyz_angstrom)
    beyond = np.maximum(np.maximum(-zyx, zyx - (np.asarray(grid.shape_zyx) - 1)), 0) * grid.spacing_zyx_angstrom
    radius = np.asarray([t.radius_angstrom for t in picks.types])[picks.type_index]
    return np.asarray(beyond.max(axis=1, initial=0.0) < radius, np.bool_)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """A box of an array; indexed by three slices of step 1."""

    array: Any
    ranges: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(high - low for low, high in self.ranges)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.array.dtype)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Float[NDArray[np.float32], "z y x"]:
        spans = [range(*s.indices(n)) for s, n in zip(key, self.shape, strict=True)]
        moved = tuple(slice(low + s.start, low + s.stop) for s, (low, _) in zip(spans, self.ranges, strict=True))
        return np.asarray(self.array[moved], np.float32)
