"""Densities of particles, as sums of Gaussian blobs that keep each particle's size and character."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import ParticleType

Points = Float[NDArray[np.float64], "_n 3"]

# Blobs reach this many of their widths past their centres before they count as outside the particle's radius.
_EDGE_SIGMAS = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParticleModel:
    """A density of Gaussian blobs around its center of mass. Its interior is 1 where `density` is 1."""

    xyz_angstrom: Points
    sigma_angstrom: float
    amplitude: Float[NDArray[np.float64], " n"]

    def rotated(self, rotation: Float[NDArray[np.float64], "3 3"]) -> ParticleModel:
        """The model turned about its center of mass."""
        return dataclasses.replace(self, xyz_angstrom=self.xyz_angstrom @ rotation.T)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shape:
    """Blob positions in units of the bounding radius, the blobs' width in the same unit, and their weights."""

    points: Points
    sigma: float
    weights: Float[NDArray[np.float64], " n"]
    density: float = 1.0


def particle_model(type_: ParticleType) -> ParticleModel:
    """The model of a type, by its name; for an unknown name, an irregular globule that depends only on the name.

    It is the same on every call. The blobs end at the type's radius, which stands for half the longest extent.
    """
    make = _SHAPES.get(type_.name)
    shape = _globule(np.random.default_rng(zlib.crc32(type_.name.encode()))) if make is None else make()
    return _to_model(shape, type_.radius_angstrom)


def globule_model(rng: np.random.Generator, radius_angstrom: float, density: float) -> ParticleModel:
    """A small irregular body of a few blobs, as crowds a lysate."""
    points = rng.normal(size=(int(rng.integers(2, 5)), 3)) * rng.uniform(0.2, 0.6, 3)
    shape = _Shape(points=points, sigma=0.3, weights=np.ones(len(points)), density=density)
    return _to_model(shape, radius_angstrom)


def _to_model(shape: _Shape, radius_angstrom: float) -> ParticleModel:
    """Centers the blobs, fits them into the radius and gives them the amplitude that fills the interior."""
    points = shape.points - np.average(shape.points, axis=0, weights=shape.weights)
    reach = float(np.linalg.norm(points, axis=1).max())
    if reach > 0:
        points = points * ((1 - _EDGE_SIGMAS * shape.sigma) / reach)
    squared = np.sum((points[:, None] - points[None]) ** 2, axis=-1)
    density = np.exp(-squared / (2 * shape.sigma**2)) @ shape.weights
    amplitude = shape.weights * (shape.density / np.average(density, weights=shape.weights))
    return ParticleModel(
        xyz_angstrom=points * radius_angstrom, sigma_angstrom=shape.sigma * radius_angstrom, amplitude=amplitude
    )


def _sphere(n: int) -> Points:
    """Nearly even points on the unit sphere (Fibonacci lattice)."""
    index = np.arange(n) + 0.5
    z = 1 - 2 * index / n
    angle = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1)


def _ball(rng: np.random.Generator, n: int, center: tuple[float, ...], semi_axes: tuple[float, ...]) -> Points:
    """Random points in an ellipsoid."""
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points: Points = directions * rng.uniform(size=(n, 1)) ** (1 / 3) * np.asarray(semi_axes) + np.asarray(center)
    return points


def _dihedral(points: Points) -> Float[NDArray[np.float64], "four_n 3"]:
    """The points and their copies turned by half a turn about x, y and z."""
    signs = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)])
    return np.concatenate([points * s for s in signs])


def _uniform(points: Points, sigma: float, density: float = 1.0) -> _Shape:
    return _Shape(points=points, sigma=sigma, weights=np.ones(len(points)), density=density)


def _ferritin() -> _Shape:
    """A hollow sphere of protein; the cavity is two thirds as wide."""
    return _uniform(_sphere(60), 0.13, 1.1)


def _virus_like_particle() -> _Shape:
    """A large capsid with some nucleic acid inside."""
    inside = _ball(np.random.default_rng(1), 90, (0, 0, 0), (0.6, 0.6, 0.6))
    weights = np.concatenate([np.ones(240), np.full(90, 0.45)])
    return _Shape(points=np.concatenate([_sphere(240), inside]), sigma=0.085, weights=weights, density=1.1)


def _ribosome() -> _Shape:
    """A round large subunit and a flat, bent small one with a cleft between them; dense with nucleic acid."""
    rng = np.random.default_rng(2)
    large = _ball(rng, 190, (0.18, 0.0, 0.0), (0.55, 0.68, 0.62))
    stalk = np.linspace((0.3, 0.6, 0.0), (0.35, 0.82, 0.12), 5)
    small = np.concatenate(
        [_ball(rng, 80, (-0.62, -0.15, 0.0), (0.22, 0.5, 0.42)), _ball(rng, 25, (-0.6, 0.5, 0.05), (0.2, 0.26, 0.28))]
    )
    return _uniform(np.concatenate([large, stalk, small]), 0.11, 1.5)


def _thyroglobulin() -> _Shape:
    """An elongated dimer: each half a bent arm around the twofold axis z."""
    rng = np.random.default_rng(3)
    along = np.linspace(0.08, 1.0, 9)
    arm = np.stack([along, 0.35 * np.sin(3.2 * along), 0.2 * np.cos(4 * along) - 0.1], axis=1)
    half = np.concatenate([p + rng.normal(scale=0.11, size=(9, 3)) * (1.25 - 0.5 * p[0]) for p in arm])
    return _uniform(np.concatenate([half, half * (-1, -1, 1)]), 0.13, 1.35)


def _galactosidase() -> _Shape:
    """A tetramer with the symmetry D2, about 175 × 135 × 90 Å."""
    monomer = _ball(np.random.default_rng(4), 24, (0.42, 0.3, 0.18), (0.42, 0.32, 0.28))
    return _uniform(_dihedral(monomer), 0.125, 1.15)


def _amylase() -> _Shape:
    """A small tetramer of globules."""
    monomer = _ball(np.random.default_rng(5), 6, (0.42, 0.36, 0.2), (0.2, 0.2, 0.2))
    return _uniform(_dihedral(monomer), 0.2, 1.0)


def _globule(rng: np.random.Generator) -> _Shape:
    """Two to four overlapping ellipsoids in a row that turns."""
    center = np.zeros(3)
    parts = []
    for _ in range(int(rng.integers(2, 5))):
        parts.append(_ball(rng, 30, tuple(center), tuple(rng.uniform(0.3, 0.6, 3))))
        step = rng.normal(size=3)
        center = center + 0.55 * step / np.linalg.norm(step)
    return _uniform(np.concatenate(parts), 0.12, 1.0)


_SHAPES: dict[str, Callable[[], _Shape]] = {
    "apo-ferritin": _ferritin,
    "beta-galactosidase": _galactosidase,
    "ribosome": _ribosome,
    "thyroglobulin": _thyroglobulin,
    "virus-like-particle": _virus_like_particle,
    "beta-amylase": _amylase,
}
