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
from jaxcryo.phantom.beads import BeadModel, Points
from jaxcryo.phantom.placing import Cloud, Ice, Placer, Position, somewhere
from jaxcryo.phantom.settings import ContentRanges, Range
from jaxcryo.phantom.unlabelled import add_carbon, add_filament, add_gold, add_vesicle

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

_STRETCHED, _STRETCH = 0.6, (0.65, 1.4)
"""Share of other assemblies that are stretched, and how far along each of three axes: a picker that knew a dozen bodies
by heart would take every new one for a particle."""
_PIECES = 60
"""Different fragments in one phantom; each occurs in many directions."""
_PIECE_KILODALTON = (25.0, 350.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Points of a scene in ångströms along z, y, x from voxel 0, and the particles that count."""

    points_zyx_angstrom: Points
    mass_kilodalton: Float[NDArray[np.float64], " n"]
    centers_zyx_angstrom: Float[NDArray[np.float64], "p 3"]
    type_index: Int[NDArray[np.int64], " p"]
    ice: Ice


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
    placer, cloud = Placer(), Cloud()
    clearance = float(rng.uniform(*ranges.clearance))
    membranes = _count(rng, ranges.vesicles, share)
    for _ in range(membranes):
        add_vesicle(cloud, placer, extent, ice, rng)
    if rng.uniform() < ranges.carbon:
        add_carbon(cloud, extent, ice, rng)
    if rng.uniform() < ranges.gold:
        for _ in range(1 + int(rng.poisson(20 * share))):
            add_gold(cloud, placer, extent, rng)
    particles = _place_types(ranges, types, extent, ice, share, clearance, placer, rng)
    for center, index in particles:
        model = types[index][2]
        _add_body(cloud, model, center, float(rng.uniform(*contrast)), rng)
    for _ in range(_count(rng, ranges.company, share)):
        model = company[int(rng.integers(len(company)))]
        if rng.uniform() < _STRETCHED:
            model = _stretched(model, rng)
        _try_body(cloud, placer, model, extent, ice, clearance, float(rng.uniform(*contrast)), rng)
    for _ in range(_count(rng, ranges.aggregates, share)):
        _add_aggregate(cloud, placer, company, extent, ice, rng)
    for _ in range(_count(rng, ranges.filaments, share)):
        add_filament(cloud, placer, extent, ice, rng)
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


def _place_types(
    ranges: ContentRanges,
    types: Sequence[tuple[str, float, BeadModel]],
    extent: Position,
    ice: Ice,
    share: float,
    clearance: float,
    placer: Placer,
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
                    center = somewhere(extent, ice, rng)
                if placer.free(center, radius, clearance):
                    placer.add(center, radius)
                    own.append(center)
                    placed.append((center, index))
                    break
    return placed


def _turned(model: BeadModel, rng: np.random.Generator) -> Points:
    return model.xyz_angstrom @ Rotation.random(rng=rng).as_matrix().T


def _add_body(cloud: Cloud, model: BeadModel, center: Position, factor: float, rng: np.random.Generator) -> None:
    cloud.add(center + _turned(model, rng)[:, ::-1], model.mass_kilodalton * factor)


def _try_body(
    cloud: Cloud,
    placer: Placer,
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
        center = somewhere(extent, ice, rng, margin=80.0)
        if placer.free(center, radius, clearance):
            if keep:
                placer.add(center, radius)
            _add_body(cloud, model, center, factor, rng)
            return


def _stretched(model: BeadModel, rng: np.random.Generator) -> BeadModel:
    """A body that nobody has seen, as dense as the one it is made from."""
    turned, factors = _turned(model, rng), rng.uniform(*_STRETCH, 3)
    mass = model.mass_kilodalton * float(np.prod(factors))
    return dataclasses.replace(model, xyz_angstrom=turned * factors, mass_kilodalton=mass)


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
    cloud: Cloud, placer: Placer, company: Sequence[BeadModel], extent: Position, ice: Ice, rng: np.random.Generator
) -> None:
    """A walk of pieces that touch, from a pair to a clump of a thousand ångströms."""
    center = somewhere(extent, ice, rng, margin=100.0)
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
