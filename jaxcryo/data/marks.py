"""Which voxels of a partly marked tomogram are known: around marks, in complete regions, far below any particle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from jaxcryo.config import PartialConfig
from jaxcryo.domain import Picks, VoxelGrid
from jaxcryo.picks.corrections import Region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marks:
    """What a person marked in a tomogram besides its particles."""

    none: Picks
    """Positions without a particle of the type."""
    complete: tuple[Region, ...] = ()
    """Regions in which every particle is marked."""


def known_voxels(
    picks: Picks,
    marks: Marks,
    grid: VoxelGrid,
    config: PartialConfig,
    *,
    far_below: Iterable[tuple[int, UInt8[NDArray[np.uint8], "c d y x"]]] = (),
) -> UInt8[NDArray[np.uint8], "c z y x"]:
    """1 where a voxel's target is known, for each type.

    Around a marked particle, its own type is known as far as no second one can be, other types as far as they cannot
    share the position; around a rejected position, its type; in a complete region, all a radius away from its sides.
    `far_below` yields further known voxels, slab by slab.
    """
    types = picks.types
    known = np.zeros((len(types), *grid.shape_zyx), np.uint8)
    for start, slab in far_below:
        known[:, start : start + slab.shape[1]] = slab
    for index, center in zip(picks.type_index.tolist(), grid.to_voxel(picks.xyz_angstrom), strict=True):
        own = types[index].radius_angstrom
        for channel, other in enumerate(types):
            reach = config.own_reach * own
            if channel != index:
                reach = config.other_reach * min(own, other.radius_angstrom)
            _ball(known[channel], center, reach, grid)
    for index, center in zip(marks.none.type_index.tolist(), grid.to_voxel(marks.none.xyz_angstrom), strict=True):
        _ball(known[index], center, config.other_reach * types[index].radius_angstrom, grid)
    for region in marks.complete:
        ends = grid.to_voxel([region.low_xyz_angstrom, region.high_xyz_angstrom])
        for channel, kind in enumerate(types):
            _box(known[channel], ends.min(axis=0), ends.max(axis=0), kind.radius_angstrom, grid)
    return known


def _box(
    known: UInt8[NDArray[np.uint8], "z y x"],
    low_zyx_voxel: Float[NDArray[np.float64], " 3"],
    high_zyx_voxel: Float[NDArray[np.float64], " 3"],
    margin_angstrom: float,
    grid: VoxelGrid,
) -> None:
    """Marks the voxels that no particle outside the box reaches; outside the tomogram's own faces there are none."""
    margin, shape = margin_angstrom / np.asarray(grid.spacing_zyx_angstrom), np.asarray(grid.shape_zyx)
    low = np.where(low_zyx_voxel > 0, low_zyx_voxel + margin, 0)
    high = np.where(high_zyx_voxel < shape - 1, high_zyx_voxel - margin, shape - 1)
    first, last = np.ceil(low).astype(int), np.floor(high).astype(int) + 1
    known[tuple(slice(a, max(a, b)) for a, b in zip(first.tolist(), last.tolist(), strict=True))] = 1


def _ball(
    known: UInt8[NDArray[np.uint8], "z y x"],
    center_zyx_voxel: Float[NDArray[np.float64], " 3"],
    radius_angstrom: float,
    grid: VoxelGrid,
) -> None:
    """Marks the voxels whose centers are within the radius."""
    reach = radius_angstrom / np.asarray(grid.spacing_zyx_angstrom)
    low = np.clip(np.ceil(center_zyx_voxel - reach), 0, grid.shape_zyx).astype(int)
    high = np.clip(np.floor(center_zyx_voxel + reach) + 1, 0, grid.shape_zyx).astype(int)
    axes = [(np.arange(a, b) - c) / r for a, b, c, r in zip(low, high, center_zyx_voxel, reach, strict=True)]
    z, y, x = np.ix_(*axes)
    box = known[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    box[z**2 + y**2 + x**2 <= 1] = 1
