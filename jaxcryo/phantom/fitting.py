"""Fitting beads to a density map: expectation maximization of a mixture of Gaussians of one width."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.spatial import cKDTree

from jaxcryo.phantom.beads import BEAD_SIGMA_ANGSTROM, BeadModel, Points

_NEIGHBORS = 32
_ROUNDS = 20
# Beads may lie this far apart before the body between them shows their grain.
_SPACING_ANGSTROM = 11.0


def fit_beads(
    name: str,
    xyz_angstrom: Points,
    mass_kilodalton: Float[NDArray[np.float64], " m"],
    *,
    most: int = 2500,
    seed: int = 0,
    source: str = "",
) -> BeadModel:
    """Beads whose Gaussians add up to the mass at the given points, around its center of mass.

    Each round of the maximization keeps total mass and center of mass exactly, which is why it is this one.
    """
    extent = _volume_angstrom3(xyz_angstrom)
    count = int(np.clip(extent / _SPACING_ANGSTROM**3, 4, min(most, len(xyz_angstrom))))
    rng = np.random.default_rng(seed)
    mass = mass_kilodalton / mass_kilodalton.sum()
    start = rng.choice(len(xyz_angstrom), count, replace=False, p=mass)
    centers, _ = kmeans2(xyz_angstrom, xyz_angstrom[start], iter=5, minit="matrix", missing="warn")
    weights = np.full(count, 1 / count)
    for _ in range(_ROUNDS):
        centers, weights = _round(xyz_angstrom, mass, centers, weights)
        alive = weights > 1e-3 / count
        centers, weights = centers[alive], weights[alive] / weights[alive].sum()
    centers, weights = _round(xyz_angstrom, mass, centers, weights)
    total = float(mass_kilodalton.sum())
    return BeadModel(name=name, xyz_angstrom=centers, mass_kilodalton=weights * total, source=source).centered()


def _round(
    points: Points,
    mass: Float[NDArray[np.float64], " m"],
    centers: Points,
    weights: Float[NDArray[np.float64], " n"],
) -> tuple[Points, Float[NDArray[np.float64], " n"]]:
    """One step of expectation and maximization, each point shared by the beads that are nearest to it."""
    count = min(_NEIGHBORS, len(centers))
    distance, column = cKDTree(centers).query(points, k=count)
    distance, column = distance.reshape(len(points), count), column.reshape(-1)
    row = np.repeat(np.arange(len(points)), count)
    # Relative to the nearest bead, so that no point is out of reach.
    value = np.exp((distance[:, :1] ** 2 - distance**2) / (2 * BEAD_SIGMA_ANGSTROM**2)).ravel()
    value = value * weights[column]
    value *= (mass / np.maximum(np.bincount(row, value, len(points)), 1e-300))[row]
    updated = np.bincount(column, value, len(centers))
    safe = np.maximum(updated, 1e-300)
    moved = np.stack([np.bincount(column, value * points[row, a], len(centers)) / safe for a in range(3)], axis=1)
    return np.where(updated[:, None] > 0, moved, centers), np.asarray(updated, np.float64)


def _volume_angstrom3(points: Points) -> float:
    """The space that the points take, counted in cells of 10 Å."""
    return 1000.0 * len(np.unique(np.floor(points / 10).astype(np.int64), axis=0))
