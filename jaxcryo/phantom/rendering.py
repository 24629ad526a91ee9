"""Drawing a scene's density onto a voxel grid at sub-voxel precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import ParticleType, VoxelGrid
from jaxcryo.phantom.particles import ParticleModel, globule_model, particle_model
from jaxcryo.phantom.scene import Membrane, Scene

Density = Float[NDArray[np.float32], "z y x"]

# Blobs are cut where they have fallen to 3e-4 of their height.
_CUT_SIGMAS = 4.0
# Voxels do not sample a narrower Gaussian correctly, and its center would move with the grid.
_LEAST_SIGMA_VOXEL = 0.6

_LEAFLET_OFFSET_ANGSTROM = 18.0
_LEAFLET_SIGMA_ANGSTROM = 7.0
_LEAFLET_DENSITY = 0.8
_PATCH_EDGE_ANGSTROM = 200.0


def render_scene(
    grid: VoxelGrid, scene: Scene, types: Sequence[ParticleType], crowd_seed: np.random.SeedSequence
) -> Density:
    """The density of everything in the scene: 0 in the ice, about 1 in protein."""
    density = np.zeros(grid.shape_zyx, np.float32)
    for membrane in scene.membranes:
        _add_membrane(density, grid, membrane)
    rng = np.random.default_rng(crowd_seed)
    spacing = np.asarray(grid.spacing_zyx_angstrom)
    for crowder in scene.crowders:
        model = globule_model(rng, crowder.radius_angstrom, crowder.density)
        _add_model(density, grid, model, crowder.zyx_angstrom / spacing)
    models = [particle_model(t) for t in types]
    for center, index, rotation in zip(scene.zyx_voxel, scene.type_index, scene.rotations, strict=True):
        _add_model(density, grid, models[index].rotated(rotation), center)
    return density


def _add_model(
    density: Density, grid: VoxelGrid, model: ParticleModel, center_zyx_voxel: Float[NDArray[np.float64], " 3"]
) -> None:
    """Adds a model's blobs. A blob's box is a product of three lines, so the sum over blobs is a matrix product."""
    spacing = np.asarray(grid.spacing_zyx_angstrom)
    centers = center_zyx_voxel + model.xyz_angstrom[:, ::-1] / spacing
    sigmas = np.maximum(model.sigma_angstrom / spacing, _LEAST_SIGMA_VOXEL)
    # The peak is lowered where the width is raised, so that the mass stays.
    amplitude = model.amplitude * np.prod(model.sigma_angstrom / spacing / sigmas)
    starts, lines = [], []
    for axis in range(3):
        reach = _CUT_SIGMAS * sigmas[axis]
        start = max(0, int(np.ceil(centers[:, axis].min() - reach)))
        stop = min(grid.shape_zyx[axis], int(np.floor(centers[:, axis].max() + reach)) + 1)
        if stop <= start:
            return
        offsets = np.arange(start, stop) - centers[:, axis, None]
        starts.append(start)
        lines.append(np.exp(-(offsets**2) / (2 * sigmas[axis] ** 2)).astype(np.float32))
    z, y, x = lines
    planes = (z * amplitude[:, None].astype(np.float32))[:, :, None] * y[:, None, :]
    box = (planes.reshape(len(planes), -1).T @ x).reshape(z.shape[1], y.shape[1], x.shape[1])
    density[tuple(slice(s, s + n) for s, n in zip(starts, box.shape, strict=True))] += box


def _add_membrane(density: Density, grid: VoxelGrid, membrane: Membrane) -> None:
    """Adds two leaflets, slice by slice, within the box around the patch."""
    spacing = np.asarray(grid.spacing_zyx_angstrom)
    reach = membrane.patch_radius_angstrom + _PATCH_EDGE_ANGSTROM
    starts = np.maximum(0, np.floor((membrane.patch_zyx_angstrom - reach) / spacing)).astype(int)
    stops = np.minimum(grid.shape_zyx, np.ceil((membrane.patch_zyx_angstrom + reach) / spacing) + 1).astype(int)
    if np.any(stops <= starts):
        return
    sigma = max(_LEAFLET_SIGMA_ANGSTROM, _LEAST_SIGMA_VOXEL * grid.spacing_angstrom)
    z, y, x = ((np.arange(a, b) * s).astype(np.float32) for a, b, s in zip(starts, stops, spacing, strict=True))
    center, patch = membrane.center_zyx_angstrom.astype(np.float32), membrane.patch_zyx_angstrom.astype(np.float32)
    for i, height in enumerate(z):
        radial = np.sqrt((height - center[0]) ** 2 + (y[:, None] - center[1]) ** 2 + (x - center[2]) ** 2)
        lateral = np.sqrt((height - patch[0]) ** 2 + (y[:, None] - patch[1]) ** 2 + (x - patch[2]) ** 2)
        from_leaflet = np.abs(np.abs(radial - membrane.radius_angstrom) - _LEAFLET_OFFSET_ANGSTROM)
        inside = np.clip((membrane.patch_radius_angstrom - lateral) / _PATCH_EDGE_ANGSTROM, 0, 1)
        layer = _LEAFLET_DENSITY * np.exp(-(from_leaflet**2) / (2 * sigma**2)) * inside
        density[starts[0] + i, starts[1] : stops[1], starts[2] : stops[2]] += layer.astype(np.float32)
