"""What nobody labels in a phantom and no structure describes: membranes, filaments, gold and carbon."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial.transform import Rotation

from jaxcryo.phantom.beads import PROTEIN_KILODALTON_PER_ANGSTROM3
from jaxcryo.phantom.placing import Cloud, Ice, Placer, Position, somewhere

_LIPID_KILODALTON_PER_ANGSTROM2 = 0.0105
"""Of one leaflet: its heads, and the contrast of its tails against ice."""
_GOLD_CONTRAST = 12.0
"""Against protein's interior: 19 g/cm³, dampened by absorption and clipping in the reconstruction."""


def add_vesicle(cloud: Cloud, placer: Placer, extent: Position, ice: Ice, rng: np.random.Generator) -> None:
    """A bilayer on an ellipsoid, whole or a patch, with or without something inside."""
    radius = math.exp(rng.uniform(math.log(120), math.log(1200)))
    center = somewhere(extent, ice, rng, margin=0.5 * radius)
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


def add_filament(cloud: Cloud, placer: Placer, extent: Position, ice: Ice, rng: np.random.Generator) -> None:
    """A tube or a thread that bends: microtubules, actin, nucleic acid."""
    kind = rng.uniform()
    radius = 0.0 if kind < 0.4 else (30.0 if kind < 0.75 else 105.0)
    per_angstrom = float(rng.uniform(0.06, 0.4)) if radius == 0 else (1.55 if radius < 50 else 15.0)
    length = float(rng.uniform(300, 3000))
    steps = int(length / 8)
    stiffness = 0.12 if radius == 0 else (0.01 if radius < 50 else 0.003)
    start = somewhere(extent, ice, rng, margin=200.0)
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


def add_gold(cloud: Cloud, placer: Placer, extent: Position, rng: np.random.Generator) -> None:
    """A bead of colloidal gold, 50 or 100 Å wide."""
    radius = 25.0 if rng.uniform() < 0.4 else 50.0
    center = rng.uniform(0, 1, 3) * extent
    points = rng.normal(size=(120, 3))
    points *= radius * rng.uniform(0, 1, (120, 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    mass = 4 / 3 * np.pi * radius**3 * PROTEIN_KILODALTON_PER_ANGSTROM3 * _GOLD_CONTRAST
    cloud.add(center + points, np.full(120, mass / 120))
    placer.add(center, radius + 60)


def add_carbon(cloud: Cloud, extent: Position, ice: Ice, rng: np.random.Generator) -> None:
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
