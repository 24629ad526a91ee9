"""One place, one particle: picks of different types closer than two particles can be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from jaxcryo.domain import Picks

CLOSEST_SHARE = 0.15
"""Of the sum of two particles' radii."""


def one_type_per_place(picks: Picks, merit: Float[NDArray[np.float64], " n"]) -> Picks:
    """Without the picks that lie closer to a better one of another type than `CLOSEST_SHARE` of the sum of their radii.

    The best first by `merit`, such as the calibrated chance; of equal ones the first. Picks of one type are not
    compared, they have been merged before.
    """
    return picks.select(np.flatnonzero(_stay(picks, np.asarray(merit, np.float64))))


def _stay(picks: Picks, merit: Float[NDArray[np.float64], " n"]) -> Bool[NDArray[np.bool_], " n"]:
    stays = np.ones(len(picks), np.bool_)
    if len(picks) < 2:
        return stays
    reach = CLOSEST_SHARE * np.array([t.radius_angstrom for t in picks.types])[picks.type_index]
    pairs = cKDTree(picks.xyz_angstrom).query_pairs(2 * float(reach.max()), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    distance = np.linalg.norm(picks.xyz_angstrom[first] - picks.xyz_angstrom[second], axis=1)
    other = picks.type_index[first] != picks.type_index[second]
    pairs = pairs[other & (distance < reach[first] + reach[second])]
    neighbors: dict[int, list[int]] = {}
    for a, b in pairs.tolist():
        neighbors.setdefault(a, []).append(b)
        neighbors.setdefault(b, []).append(a)
    rank = np.empty(len(picks), np.int64)
    rank[np.argsort(-merit, kind="stable")] = np.arange(len(picks))
    for index in sorted(neighbors, key=lambda i: rank[i]):
        if stays[index]:
            for near in neighbors[index]:
                if rank[near] > rank[index]:
                    stays[near] = False
    return stays
