"""Places in a phantom: the ice, the occupied positions, and the points gathered so far."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.phantom.beads import Points

Position = Float[NDArray[np.float64], " 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ice:
    """The slab that holds everything: its middle height over the volume's middle, its slopes and thickness."""

    middle_angstrom: float
    slope_yx: tuple[float, float]
    thickness_angstrom: float

    def height(self, zyx: Points, center: Position) -> Float[NDArray[np.float64], " n"]:
        """Of positions in ångströms above the slab's middle plane, in half thicknesses."""
        off = zyx - center
        plane = self.middle_angstrom + off[:, 1] * self.slope_yx[0] + off[:, 2] * self.slope_yx[1]
        return (off[:, 0] - plane) / (0.5 * self.thickness_angstrom)


class Placer:
    """Keeps apart what may not overlap, in ångströms."""

    def __init__(self) -> None:
        self.centers = np.zeros((0, 3))
        self.radii = np.zeros(0)

    def free(self, center: Position, radius: float, clearance: float) -> bool:
        if not len(self.radii):
            return True
        squared = np.sum((self.centers - center) ** 2, axis=1)
        return bool(np.all(squared >= (clearance * (self.radii + radius)) ** 2))

    def add(self, center: Position, radius: float) -> None:
        self.centers = np.vstack([self.centers, center])
        self.radii = np.append(self.radii, radius)


class Cloud:
    """Gathers points."""

    def __init__(self) -> None:
        self.points: list[Points] = []
        self.mass: list[Float[NDArray[np.float64], " n"]] = []

    def add(self, points: Points, mass: Float[NDArray[np.float64], " n"]) -> None:
        self.points.append(points)
        self.mass.append(np.broadcast_to(mass, len(points)))


def somewhere(extent: Position, ice: Ice, rng: np.random.Generator, margin: float = 0.0) -> Position:
    """In the ice, or anywhere where the volume has none after some tries."""
    tries = rng.uniform(0, 1, (12, 3)) * (extent + 2 * margin) - margin
    inside = np.abs(ice.height(tries, 0.5 * extent)) < 0.95
    return np.asarray(tries[int(np.argmax(inside))])
