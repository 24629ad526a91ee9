"""The surroundings of picks: a rival of another type, the tomogram's border, the surface of a mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from jaxcryo.domain import Picks, Volume, VoxelGrid
from jaxcryo.picking.places import close_pairs

_SLICES = 32


def with_surroundings(picks: Picks, grid: VoxelGrid, mask: Volume | None = None) -> Picks:
    """The same picks, each with the best candidate of another type at its place and its distances in ångströms.

    A place is as in `places.py`. The mask's surface is the faces between voxels that are above 0 and neighbors that are
    not, and a distance is to the middle of the nearest face; the mask's own edge is none.

    Raises:
        InputError: the mask cannot be read.
    """
    zyx = grid.to_voxel(picks.xyz_angstrom)
    room = np.minimum(zyx + 0.5, np.asarray(grid.shape_zyx) - 0.5 - zyx) * np.asarray(grid.spacing_zyx_angstrom)
    measured = _rivals(picks) | {"border_angstrom": np.maximum(room.min(axis=1, initial=np.inf), 0.0)}
    if mask is not None:
        points = list(_surface(dataclasses.replace(mask, grid=mask.grid.in_frame_of(grid))))
        if points:
            measured["surface_angstrom"], _ = cKDTree(np.concatenate(points)).query(picks.xyz_angstrom)
    return dataclasses.replace(picks, measured=measured)


def _rivals(picks: Picks) -> dict[str, Float[NDArray[np.float64], " n"]]:
    kind, best = np.full(len(picks), np.nan), np.full(len(picks), np.nan)
    if picks.score is None:
        return {}
    pairs = close_pairs(picks)
    for own, rival in pairs[np.argsort(picks.score[pairs[:, 1]], kind="stable")].tolist():  # the best comes last
        kind[own], best[own] = picks.type_index[rival], picks.score[rival]
    return {"second_type": kind, "second_score": best}


def _surface(mask: Volume) -> Iterator[Float[NDArray[np.float64], "n 3"]]:
    """x, y, z in ångströms of the middles of the faces between inside and outside, a few slices at a time."""
    depth = mask.grid.shape_zyx[0]
    for start in range(0, depth, _SLICES):
        inside = mask.read(start, min(start + _SLICES + 1, depth)) > 0
        for axis in range(3):
            along = np.moveaxis(inside if axis == 0 else inside[:_SLICES], axis, 0)
            places = np.argwhere(np.moveaxis(along[1:] != along[:-1], 0, axis)).astype(np.float64)
            places[:, axis] += 0.5
            places[:, 0] += start
            if len(places):
                yield mask.grid.to_angstrom(places)
