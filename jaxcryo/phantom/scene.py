"""What is in a synthetic tomogram and where: particles, crowding and membranes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from jaxcryo.domain import CZII_VOLUME_ANGSTROM3, ParticleType, VoxelGrid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Abundance:
    """Picks of a type per run of the challenge: the mean, the least and the most."""

    mean: float
    least: int
    most: int


ABUNDANCES = {
    "apo-ferritin": Abundance(mean=53.6, least=35, most=95),
    "beta-galactosidase": Abundance(mean=16.0, least=11, most=24),
    "ribosome": Abundance(mean=47.3, least=23, most=74),
    "thyroglobulin": Abundance(mean=35.9, least=28, most=49),
    "virus-like-particle": Abundance(mean=16.1, least=9, most=29),
    "beta-amylase": Abundance(mean=12.4, least=9, most=21),
}
"""Counted over the seven training runs of the CZII challenge (1,269 picks)."""

_OTHER_TYPES = Abundance(mean=25.0, least=12, most=40)

_CROWDERS_PER_ANGSTROM3 = 7000 / CZII_VOLUME_ANGSTROM3
_VESICLES_PER_ANGSTROM3 = 5 / CZII_VOLUME_ANGSTROM3
_SHEETS_PER_ANGSTROM3 = 3 / CZII_VOLUME_ANGSTROM3
_MEMBRANE_CLEARANCE_ANGSTROM = 30.0
_ATTEMPTS = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crowder:
    """A small unlabelled globule, positioned in ångströms along the array's axes from voxel 0."""

    zyx_angstrom: Float[NDArray[np.float64], " 3"]
    radius_angstrom: float
    density: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Membrane:
    """A lipid bilayer on a sphere: all of it (a vesicle), or the part within `patch_radius` of a point on it."""

    center_zyx_angstrom: Float[NDArray[np.float64], " 3"]
    radius_angstrom: float
    patch_zyx_angstrom: Float[NDArray[np.float64], " 3"]
    patch_radius_angstrom: float

    def distances(
        self, zyx_angstrom: Float[NDArray[np.float64], "n 3"]
    ) -> tuple[Float[NDArray[np.float64], " n"], Float[NDArray[np.float64], " n"]]:
        """How far positions are from the sphere's surface and from the patch's middle."""
        surface = np.abs(np.linalg.norm(zyx_angstrom - self.center_zyx_angstrom, axis=1) - self.radius_angstrom)
        return surface, np.linalg.norm(zyx_angstrom - self.patch_zyx_angstrom, axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """The contents of one tomogram. Particle positions are sub-voxel array indices of their centers of mass."""

    zyx_voxel: Float[NDArray[np.float64], "n 3"]
    type_index: Int[NDArray[np.int64], " n"]
    rotations: Float[NDArray[np.float64], "n 3 3"]
    """Of a model's x, y, z."""
    crowders: tuple[Crowder, ...]
    membranes: tuple[Membrane, ...]


def make_scene(
    grid: VoxelGrid, types: Sequence[ParticleType], seed: np.random.SeedSequence, *, crowding: float, clearance: float
) -> Scene:
    """Fills a volume: particles, largest types first, then membranes and crowders where particles leave room.

    Two particles keep a distance of `clearance` times the sum of their radii. Numbers follow the challenge's training
    runs in proportion to the volume; a type has at least one or two where they fit. `crowding` scales the numbers of
    what is not labelled. The particles depend on neither `crowding` nor the rest.
    """
    particle_seed, turn_seed, membrane_seed, crowd_seed = seed.spawn(4)
    spacing = np.asarray(grid.spacing_zyx_angstrom)
    extent = (np.asarray(grid.shape_zyx, np.float64) - 1) * spacing
    volume = float(np.prod(np.asarray(grid.shape_zyx) * spacing))
    radii = np.array([t.radius_angstrom for t in types], np.float64)
    zyx, type_index = _place_particles(np.random.default_rng(particle_seed), extent, volume, types, clearance)
    rotations = Rotation.random(len(zyx), rng=np.random.default_rng(turn_seed)).as_matrix() if len(zyx) else None
    membranes = _place_membranes(
        np.random.default_rng(membrane_seed), extent, volume * min(crowding, 1.0), zyx, radii[type_index]
    )
    crowders = _place_crowders(np.random.default_rng(crowd_seed), extent, volume * crowding, zyx, radii[type_index])
    return Scene(
        zyx_voxel=zyx / spacing,
        type_index=type_index,
        rotations=np.zeros((0, 3, 3)) if rotations is None else rotations,
        crowders=crowders,
        membranes=membranes,
    )


def _count(rng: np.random.Generator, abundance: Abundance, share: float) -> int:
    """How many of a type a volume gets that is `share` of the reference; the mean over runs is the abundance's."""
    mode = np.clip(3 * abundance.mean - abundance.least - abundance.most, abundance.least, abundance.most)
    expected = rng.triangular(abundance.least, mode, abundance.most) * share
    few = int(rng.integers(1, 3))
    return max(few, int(expected + rng.uniform()))


def _place_particles(
    rng: np.random.Generator,
    extent: Float[NDArray[np.float64], " 3"],
    volume: float,
    types: Sequence[ParticleType],
    clearance: float,
) -> tuple[Float[NDArray[np.float64], "n 3"], Int[NDArray[np.int64], " n"]]:
    """Positions in ångströms from voxel 0, sorted by type; centers lie inside, bodies may stick out."""
    share = volume / CZII_VOLUME_ANGSTROM3
    counts = [_count(rng, ABUNDANCES.get(t.name, _OTHER_TYPES), share) for t in types]
    placed: list[tuple[int, Float[NDArray[np.float64], " 3"]]] = []
    positions, radii = np.zeros((0, 3)), np.zeros(0)
    for index in sorted(range(len(types)), key=lambda i: -types[i].radius_angstrom):
        radius = types[index].radius_angstrom
        for _ in range(counts[index]):
            for candidate in rng.uniform(0, 1, (_ATTEMPTS, 3)) * extent:
                distances = np.linalg.norm(positions - candidate, axis=1)
                if np.all(distances >= clearance * (radii + radius)):
                    placed.append((index, candidate))
                    positions, radii = np.vstack([positions, candidate]), np.append(radii, radius)
                    break
            else:
                break
    placed.sort(key=lambda p: p[0])
    type_index = np.array([i for i, _ in placed], np.int64)
    return np.array([p for _, p in placed]).reshape(-1, 3), type_index


def _place_membranes(
    rng: np.random.Generator,
    extent: Float[NDArray[np.float64], " 3"],
    volume: float,
    particles: Float[NDArray[np.float64], "n 3"],
    radii: Float[NDArray[np.float64], " n"],
) -> tuple[Membrane, ...]:
    """Vesicles and sheets that touch no particle; those that find no place are left out."""
    wanted = [
        (True, rng.poisson(_VESICLES_PER_ANGSTROM3 * volume)),
        (False, rng.poisson(_SHEETS_PER_ANGSTROM3 * volume)),
    ]
    membranes: list[Membrane] = []
    for is_vesicle, number in wanted:
        for _ in range(number):
            for _ in range(_ATTEMPTS):
                membrane = _random_membrane(rng, extent, is_vesicle)
                surface, patch = membrane.distances(particles)
                near = patch < membrane.patch_radius_angstrom + radii + _MEMBRANE_CLEARANCE_ANGSTROM
                if not np.any(near & (surface < radii + _MEMBRANE_CLEARANCE_ANGSTROM)):
                    membranes.append(membrane)
                    break
    return tuple(membranes)


def _random_membrane(rng: np.random.Generator, extent: Float[NDArray[np.float64], " 3"], is_vesicle: bool) -> Membrane:
    on_it = rng.uniform(0, 1, 3) * extent
    if is_vesicle:
        radius = float(rng.uniform(200, 600))
        return Membrane(
            center_zyx_angstrom=on_it,
            radius_angstrom=radius,
            patch_zyx_angstrom=on_it,
            patch_radius_angstrom=radius + 300,
        )
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    radius = float(rng.uniform(1500, 6000))
    return Membrane(
        center_zyx_angstrom=on_it + radius * direction,
        radius_angstrom=radius,
        patch_zyx_angstrom=on_it,
        patch_radius_angstrom=float(rng.uniform(600, 1300)),
    )


def _place_crowders(
    rng: np.random.Generator,
    extent: Float[NDArray[np.float64], " 3"],
    volume: float,
    particles: Float[NDArray[np.float64], "n 3"],
    radii: Float[NDArray[np.float64], " n"],
) -> tuple[Crowder, ...]:
    """Globules that do not touch the nearest particle; among themselves they may."""
    number = int(rng.poisson(_CROWDERS_PER_ANGSTROM3 * volume))
    positions = rng.uniform(0, 1, (number, 3)) * extent
    # Squared, so that most are small and a few are nearly as large as the particles that are to be found.
    sizes = 18 + 37 * rng.uniform(0, 1, number) ** 2
    densities = rng.uniform(0.5, 1.0, number)
    free = np.ones(number, bool)
    if number and len(particles):
        reach = float(radii.max() + sizes.max())
        neighbors = cKDTree(particles).query_ball_point(positions, reach)
        for i, near in enumerate(neighbors):
            free[i] = all(np.linalg.norm(particles[j] - positions[i]) >= radii[j] + sizes[i] for j in near)
    return tuple(
        Crowder(zyx_angstrom=positions[i], radius_angstrom=float(sizes[i]), density=float(densities[i]))
        for i in np.flatnonzero(free)
    )
