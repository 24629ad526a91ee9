"""What is in a phantom and where: labelled particles, and everything that nobody labels, as points with mass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.domain import CZII_VOLUME_ANGSTROM3
from jaxcryo.phantom.beads import PROTEIN_KILODALTON_PER_ANGSTROM3, BeadModel, Points
from jaxcryo.phantom.settings import ContentRanges, Range

Position = Float[NDArray[np.float64], " 3"]

PICKS_PER_RUN = {
    "apo-ferritin": 53.6,
    "beta-galactosidase": 16.0,
    "ribosome": 47.3,
    "thyroglobulin": 35.9,
    "virus-like-particle": 16.1,
    "beta-amylase": 12.4,
}
"""Counted over the seven training runs of the CZII challenge (1,269 picks)."""

_OTHER_PICKS = 25.0

_CLUSTERED = {"apo-ferritin": 0.65, "ribosome": 0.35}
"""Chance to touch one of the own type, from the nearest neighbors in those runs."""

_LIPID_KILODALTON_PER_ANGSTROM2 = 0.0105
"""Of one leaflet's heads and what of the tails shows against ice."""
_PIECES = 60
"""Different fragments in one phantom; each occurs in many directions."""
_PIECE_KILODALTON = (25.0, 350.0)
_GOLD_CONTRAST = 12.0
"""Against protein's interior: 19 g/cm³, dampened by absorption and clipping in the reconstruction."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Points of a scene in ångströms along z, y, x from voxel 0, and the particles that count."""

    points_zyx_angstrom: Points
    mass_kilodalton: Float[NDArray[np.float64], " n"]
    centers_zyx_angstrom: Float[NDArray[np.float64], "p 3"]
    type_index: Int[NDArray[np.int64], " p"]
    ice: Ice


class _Placer:
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


class _Cloud:
    """Gathers points."""

    def __init__(self) -> None:
        self.points: list[Points] = []
        self.mass: list[Float[NDArray[np.float64], " n"]] = []

    def add(self, points: Points, mass: Float[NDArray[np.float64], " n"]) -> None:
        self.points.append(points)
        self.mass.append(np.broadcast_to(mass, len(points)))


def draw_contents(
    ranges: ContentRanges,
    contrast: Range,
    types: Sequence[tuple[str, float, BeadModel]],
    company: Sequence[BeadModel],
    extent: Position,
    rng: np.random.Generator,
) -> Contents:
    """Fills a volume whose voxel centers span `extent` ångströms along z, y, x.

    A type is its name, radius and beads. Centers of particles lie inside; bodies may stick out.
    """
    box = extent + 10.0
    share = float(np.prod(box)) / CZII_VOLUME_ANGSTROM3
    ice = _draw_ice(ranges, extent, rng)
    placer, cloud = _Placer(), _Cloud()
    clearance = float(rng.uniform(*ranges.clearance))
    membranes = _count(rng, ranges.vesicles, share)
    for _ in range(membranes):
        _add_vesicle(cloud, placer, extent, ice, rng)
    if rng.uniform() < ranges.carbon:
        _add_carbon(cloud, extent, ice, rng)
    if rng.uniform() < ranges.gold:
        for _ in range(1 + int(rng.poisson(20 * share))):
            _add_gold(cloud, placer, extent, rng)
    particles = _place_types(ranges, types, extent, ice, share, clearance, placer, rng)
    for center, index in particles:
        model = types[index][2]
        _add_body(cloud, model, center, float(rng.uniform(*contrast)), rng)
    for _ in range(_count(rng, ranges.company, share)):
        model = company[int(rng.integers(len(company)))]
        _try_body(cloud, placer, model, extent, ice, clearance, float(rng.uniform(*contrast)), rng)
    for _ in range(_count(rng, ranges.aggregates, share)):
        _add_aggregate(cloud, placer, company, extent, ice, rng)
    for _ in range(_count(rng, ranges.filaments, share)):
        _add_filament(cloud, placer, extent, ice, rng)
    everything = [*company, *(t[2] for t in types)]
    pieces = [_fragment(everything[int(rng.integers(len(everything)))], _piece_mass(rng), rng) for _ in range(_PIECES)]
    for _ in range(_count(rng, ranges.fragments, share)):
        piece = pieces[int(rng.integers(_PIECES))]
        _try_body(cloud, placer, piece, extent, ice, 0.7, float(rng.uniform(*contrast)), rng, keep=False)
    particles.sort(key=lambda p: p[1])
    return Contents(
        points_zyx_angstrom=np.concatenate([np.zeros((0, 3)), *cloud.points]),
        mass_kilodalton=np.concatenate([np.zeros(0), *cloud.mass]),
        centers_zyx_angstrom=np.array([c for c, _ in particles]).reshape(-1, 3),
        type_index=np.array([i for _, i in particles], np.int64),
        ice=ice,
    )


def _count(rng: np.random.Generator, per_reference: Range, share: float) -> int:
    low, high = (math.log(v) for v in per_reference)
    return int(rng.poisson(math.exp(rng.uniform(low, high)) * share))


def _draw_ice(ranges: ContentRanges, extent: Position, rng: np.random.Generator) -> Ice:
    thickness = float(rng.uniform(*ranges.thickness_angstrom))
    depth = float(extent[0])
    # Small volumes are pieces of a larger one, mostly from within the ice.
    room = max(0.5 * abs(thickness - depth), 0.15 * depth)
    slopes = np.tan(np.radians(rng.uniform(*ranges.oblique_degree, 2)))
    return Ice(
        middle_angstrom=float(rng.uniform(-room, room)),
        slope_yx=(float(slopes[0]), float(slopes[1])),
        thickness_angstrom=thickness,
    )


def _somewhere(extent: Position, ice: Ice, rng: np.random.Generator, margin: float = 0.0) -> Position:
    """In the ice, or anywhere where the volume has none after some tries."""
    tries = rng.uniform(0, 1, (12, 3)) * (extent + 2 * margin) - margin
    inside = np.abs(ice.height(tries, 0.5 * extent)) < 0.95
    return np.asarray(tries[int(np.argmax(inside))])


def _place_types(
    ranges: ContentRanges,
    types: Sequence[tuple[str, float, BeadModel]],
    extent: Position,
    ice: Ice,
    share: float,
    clearance: float,
    placer: _Placer,
    rng: np.random.Generator,
) -> list[tuple[Position, int]]:
    low, high = (math.log(v) for v in ranges.abundance)
    abundance = math.exp(rng.uniform(low, high))
    placed = []
    for index in sorted(range(len(types)), key=lambda i: -types[i][1]):
        name, radius, _ = types[index]
        absent = rng.uniform() < ranges.absent
        clustering = float(rng.uniform(*ranges.clustering)) * min(1.0, _CLUSTERED.get(name, 0.12) / 0.4)
        wanted = abundance * PICKS_PER_RUN.get(name, _OTHER_PICKS) * share * float(rng.uniform(0.5, 1.6))
        number = 0 if absent else max(int(rng.poisson(wanted)), int(rng.uniform() < 0.5))
        own: list[Position] = []
        for _ in range(number):
            for _ in range(30):
                if own and rng.uniform() < clustering:
                    direction = rng.normal(size=3)
                    step = 2 * radius * float(rng.uniform(0.95, 1.3)) / np.linalg.norm(direction)
                    center = own[int(rng.integers(len(own)))] + direction * step
                    if np.any(center < 0) or np.any(center > extent):
                        continue
                else:
                    center = _somewhere(extent, ice, rng)
                if placer.free(center, radius, clearance):
                    placer.add(center, radius)
                    own.append(center)
                    placed.append((center, index))
                    break
    return placed


def _turned(model: BeadModel, rng: np.random.Generator) -> Points:
    return model.xyz_angstrom @ Rotation.random(rng=rng).as_matrix().T


def _add_body(cloud: _Cloud, model: BeadModel, center: Position, factor: float, rng: np.random.Generator) -> None:
    cloud.add(center + _turned(model, rng)[:, ::-1], model.mass_kilodalton * factor)


def _try_body(
    cloud: _Cloud,
    placer: _Placer,
    model: BeadModel,
    extent: Position,
    ice: Ice,
    clearance: float,
    factor: float,
    rng: np.random.Generator,
    keep: bool = True,
) -> None:
    radius = model.radius_angstrom
    for _ in range(6):
        center = _somewhere(extent, ice, rng, margin=80.0)
        if placer.free(center, radius, clearance):
            if keep:
                placer.add(center, radius)
            _add_body(cloud, model, center, factor, rng)
            return


def _piece_mass(rng: np.random.Generator) -> float:
    """In kDa; small proteins are the most."""
    low, high = (math.log(v) for v in _PIECE_KILODALTON)
    return math.exp(low + (high - low) * float(rng.uniform()) ** 1.5)


def _fragment(model: BeadModel, mass_kilodalton: float, rng: np.random.Generator) -> BeadModel:
    """The beads around one of a structure's beads, up to that mass."""
    seed = model.xyz_angstrom[int(rng.integers(len(model.xyz_angstrom)))]
    distance = np.linalg.norm((model.xyz_angstrom - seed) * rng.uniform(0.6, 1.6, 3), axis=1)
    order = np.argsort(distance)
    upto = int(np.searchsorted(np.cumsum(model.mass_kilodalton[order]), mass_kilodalton)) + 1
    chosen = order[:upto]
    return dataclasses.replace(
        model, xyz_angstrom=model.xyz_angstrom[chosen], mass_kilodalton=model.mass_kilodalton[chosen]
    ).centered()


def _add_aggregate(
    cloud: _Cloud, placer: _Placer, company: Sequence[BeadModel], extent: Position, ice: Ice, rng: np.random.Generator
) -> None:
    """A walk of pieces that touch, from a pair to a clump of a thousand ångströms."""
    center = _somewhere(extent, ice, rng, margin=100.0)
    pieces = int(math.exp(rng.uniform(math.log(3), math.log(60))))
    spread = float(rng.uniform(28, 60))
    density = float(rng.uniform(0.5, 1.3))
    positions = [center]
    for _ in range(pieces):
        around = positions[int(rng.integers(len(positions)))]
        at = around + rng.normal(size=3) * spread * np.array([0.7, 1.0, 1.0])
        if not placer.free(at, 30.0, 0.9):
            continue
        positions.append(at)
        piece = _fragment(company[int(rng.integers(len(company)))], float(rng.uniform(40, 300)), rng)
        _add_body(cloud, piece, at, density, rng)
    for at in positions:
        placer.add(at, 30.0)


def _add_vesicle(cloud: _Cloud, placer: _Placer, extent: Position, ice: Ice, rng: np.random.Generator) -> None:
    """A bilayer on an ellipsoid, whole or a patch, with or without something inside."""
    radius = math.exp(rng.uniform(math.log(120), math.log(1200)))
    center = _somewhere(extent, ice, rng, margin=0.5 * radius)
    if not placer.free(center, radius + 20, 0.9) and rng.uniform() < 0.8:
        return
    number = int(min(4 * np.pi * radius**2 / 90, 120_000))
    directions = rng.normal(size=(number, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    axes = rng.uniform(0.8, 1.2, 3) if rng.uniform() < 0.7 else np.ones(3)
    if rng.uniform() < 0.3:
        directions = directions[directions @ Rotation.random(rng=rng).as_matrix()[0] > float(rng.uniform(-0.8, 0.7))]
    mass = 4 * np.pi * radius**2 / number * _LIPID_KILODALTON_PER_ANGSTROM2 * float(rng.uniform(0.7, 1.4))
    for side in (-18.0, 18.0):
        cloud.add(center + directions * axes * (radius + side), np.full(len(directions), mass))
    step = max(60.0, radius / 10)
    for direction in directions[:: max(1, int(len(directions) * step**2 / (4 * np.pi * radius**2)))][:400]:
        placer.add(center + direction * axes * radius, 30.0)


def _add_filament(cloud: _Cloud, placer: _Placer, extent: Position, ice: Ice, rng: np.random.Generator) -> None:
    """A tube or a thread that bends: microtubules, actin, nucleic acid."""
    kind = rng.uniform()
    radius = 0.0 if kind < 0.4 else (30.0 if kind < 0.75 else 105.0)
    per_angstrom = float(rng.uniform(0.06, 0.4)) if radius == 0 else (1.55 if radius < 50 else 15.0)
    length = float(rng.uniform(300, 3000))
    steps = int(length / 8)
    stiffness = 0.12 if radius == 0 else (0.01 if radius < 50 else 0.003)
    start = _somewhere(extent, ice, rng, margin=200.0)
    direction = rng.normal(size=3) * np.array([0.3, 1, 1])
    direction /= np.linalg.norm(direction)
    points = []
    for _ in range(steps):
        direction = direction + rng.normal(size=3) * stiffness
        direction /= np.linalg.norm(direction)
        start = start + 8 * direction
        points.append(start)
    path = np.array(points)
    if len(placer.radii):
        squared = np.min(np.sum((path[::4, None] - placer.centers) ** 2, -1) - (placer.radii + radius + 10) ** 2)
        if squared < 0 and rng.uniform() < 0.8:
            return
    for at in path[::8]:
        placer.add(at, radius + 10)
    if radius == 0:
        cloud.add(path, np.full(len(path), 8 * per_angstrom))
        return
    around = 3 if radius < 50 else 13
    angle = 2 * np.pi * (np.arange(around) / around)[None] + 0.25 * np.arange(len(path))[:, None] * (radius < 50)
    first = np.cross(direction, (1.0, 0.3, 0.1))
    first /= np.linalg.norm(first)
    second = np.cross(direction, first)
    ring = radius * (np.cos(angle)[..., None] * first + np.sin(angle)[..., None] * second)
    tube = (path[:, None] + ring).reshape(-1, 3)
    grain = rng.uniform(0.6, 1.4, len(tube))
    cloud.add(tube, grain * 8 * per_angstrom / around)


def _add_gold(cloud: _Cloud, placer: _Placer, extent: Position, rng: np.random.Generator) -> None:
    """A bead of colloidal gold, 50 or 100 Å wide."""
    radius = 25.0 if rng.uniform() < 0.4 else 50.0
    center = rng.uniform(0, 1, 3) * extent
    points = rng.normal(size=(120, 3))
    points *= radius * rng.uniform(0, 1, (120, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    mass = 4 / 3 * np.pi * radius**3 * PROTEIN_KILODALTON_PER_ANGSTROM3 * _GOLD_CONTRAST
    cloud.add(center + points, np.full(120, mass / 120))
    placer.add(center, radius + 60)


def _add_carbon(cloud: _Cloud, extent: Position, ice: Ice, rng: np.random.Generator) -> None:
    """The edge of a holey film: a thick, grainy sheet outside a large circle."""
    angle = float(rng.uniform(0, 2 * np.pi))
    edge = float(rng.uniform(0.15, 0.6)) * float(np.hypot(extent[1], extent[2]))
    radius = float(rng.uniform(5000, 10000))
    out = np.array([np.sin(angle), np.cos(angle)])
    center = 0.5 * extent[1:] + out * (edge - radius)
    thickness = float(rng.uniform(100, 250))
    height = 0.5 * extent[0] + ice.middle_angstrom + float(rng.uniform(-0.4, 0.4)) * ice.thickness_angstrom
    width = float(rng.uniform(300, 900))
    spacing = 16.0
    yx = np.stack(np.meshgrid(*(np.arange(-60, e + 60, spacing) for e in extent[1:]), indexing="ij"), -1).reshape(-1, 2)
    beyond = np.linalg.norm(yx - center, axis=1) - radius
    yx = yx[(beyond > 0) & (beyond < width * 4)]
    layers = max(2, int(thickness / spacing))
    points = np.concatenate(
        [np.column_stack([np.full(len(yx), height + (i - layers / 2) * spacing), yx]) for i in range(layers)]
    )
    points = points + rng.normal(size=points.shape) * 6
    strength = spacing**3 * PROTEIN_KILODALTON_PER_ANGSTROM3 * float(rng.uniform(1.2, 3.0))
    cloud.add(points, strength * rng.gamma(2.0, 0.5, len(points)))
