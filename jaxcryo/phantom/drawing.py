"""One phantom from one seed: what trainings draw while they run."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jaxcryo.domain import Volume
from jaxcryo.phantom import microscope
from jaxcryo.phantom.beads import PROTEIN_KILODALTON_PER_ANGSTROM3, BeadModel, packaged_beads
from jaxcryo.phantom.contents import Contents, draw_contents
from jaxcryo.phantom.settings import DrawConfig, DrawnImaging, draw_imaging, particles_alone
from jaxcryo.phantom.splatting import splat
from jaxcryo.phantom.structures import BUILT_IN, COMPANY, STRANGERS, BuiltIn, globule_beads, structure_beads
from jaxcryo.tomogram.statistics import Surveyed, surveyed

BACKGROUND_SHARE = 0.6
"""Share of phantoms that lie on a background, if there are any; the others show what no background does."""
_PAD_VOXEL = (8, 8, 8)
_FILLING_POINTS = 200
_TYPE_CONTRAST = 0.15
"""Deviation of a type's contrast between phantoms, in the logarithm: maps and masses are not that exact."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phantom:
    """A tomogram, and the centers of mass of the particles in it, sorted by type."""

    voxels: Float[NDArray[np.float32], "z y x"]
    centers_zyx_voxel: Float[NDArray[np.float64], "n 3"]
    type_index: Int[NDArray[np.int64], " n"]
    imaging: DrawnImaging


def draw_phantom(
    config: DrawConfig, seed: int | Sequence[int], shape_zyx: tuple[int, int, int] | None = None
) -> Phantom:
    """A phantom whose every setting comes from the seed: the same seed gives the same bits, in any process.

    `shape_zyx` replaces the configured shape.
    """
    if shape_zyx is not None:
        config = dataclasses.replace(config, shape_zyx=shape_zyx)
    grid = config.grid()
    shape_zyx = grid.shape_zyx
    settings_seed, content_seed, noise_seed, finish_seed = np.random.SeedSequence(seed).spawn(4)
    imaging = draw_imaging(config.imaging, np.random.default_rng(settings_seed), config.harshness, config.center_share)
    pad = np.asarray(_PAD_VOXEL)
    padded = tuple(int(scipy.fft.next_fast_len(n + 2 * int(p), real=True)) for n, p in zip(shape_zyx, pad, strict=True))
    inner = tuple(slice(int(p), int(p) + n) for p, n in zip(pad, shape_zyx, strict=True))
    spacing = grid.spacing_angstrom
    contents_rng = np.random.default_rng(content_seed)
    company = [packaged_beads(n) for n in (STRANGERS if config.family == "stranger" else COMPANY)]
    on_background = bool(config.backgrounds) and contents_rng.uniform() < BACKGROUND_SHARE
    contents = draw_contents(
        particles_alone(config.contents) if on_background else config.contents,
        imaging.contrast,
        type_models(config, contents_rng),
        company,
        (np.asarray(shape_zyx) - 1) * spacing,
        contents_rng,
    )
    noise_rng = np.random.default_rng(noise_seed)
    if on_background:
        density = _density(contents, padded, pad, spacing)
        imaged = microscope.image_without_noise(density, spacing, imaging, contents.ice.thickness_angstrom / spacing)
        voxels = imaged[inner] + background_box(config, shape_zyx, noise_rng)
    elif config.family == "stranger":
        from jaxcryo.phantom.stranger import image_by_tilts

        voxels = image_by_tilts(contents, shape_zyx, spacing, imaging, noise_rng)
    else:
        density = _density(contents, padded, pad, spacing)
        imaged = microscope.image(density, spacing, imaging, noise_rng, contents.ice.thickness_angstrom / spacing)
        voxels = imaged[inner]
    voxels = _finish(voxels, imaging, np.random.default_rng(finish_seed))
    return Phantom(
        voxels=voxels,
        centers_zyx_voxel=contents.centers_zyx_angstrom / spacing,
        type_index=contents.type_index,
        imaging=imaging,
    )


def type_models(config: DrawConfig, rng: np.random.Generator) -> list[tuple[str, float, BeadModel]]:
    """Name, radius and beads of each type; unknown properties of a built-in one are drawn."""
    models = []
    for index, type_ in enumerate(config.types):
        named = config.structures[index] if config.structures else ""
        built_in = BUILT_IN.get(type_.name)
        if named:
            beads = structure_beads(named)
        elif built_in is not None:
            beads = _drawn(built_in, rng)
        else:
            beads = globule_beads(type_.name, type_.radius_angstrom)
        factor = math.exp(_TYPE_CONTRAST * float(rng.normal()))
        beads = dataclasses.replace(beads, mass_kilodalton=beads.mass_kilodalton * factor)
        models.append((type_.name, type_.radius_angstrom, beads))
    return models


def _drawn(built_in: BuiltIn, rng: np.random.Generator) -> BeadModel:
    """A built-in shape in one of its sizes, with one of its fillings."""
    beads = packaged_beads(built_in.beads)
    scale = float(rng.uniform(*built_in.scales))
    if scale != 1:
        beads = beads.scaled(scale)
    filling = float(rng.uniform(*built_in.filling_kilodalton))
    if filling <= 0:
        return beads
    points = rng.normal(size=(_FILLING_POINTS, 3))
    reach = built_in.filling_radius_angstrom * rng.uniform(size=(_FILLING_POINTS, 1)) ** (1 / 3)
    points *= reach / np.linalg.norm(points, axis=1, keepdims=True)
    return dataclasses.replace(
        beads,
        xyz_angstrom=np.concatenate([beads.xyz_angstrom, points]),
        mass_kilodalton=np.concatenate([beads.mass_kilodalton, np.full(_FILLING_POINTS, filling / _FILLING_POINTS)]),
    ).centered()


def _density(
    contents: Contents, padded: tuple[int, ...], pad: NDArray[np.int64], spacing: float
) -> Float[NDArray[np.float32], "z y x"]:
    """Mass per voxel against protein's interior."""
    interior = PROTEIN_KILODALTON_PER_ANGSTROM3 * spacing**3
    points = contents.points_zyx_angstrom / spacing + pad
    return splat((padded[0], padded[1], padded[2]), points, contents.mass_kilodalton / interior)


def _finish(
    voxels: Float[NDArray[np.float32], "z y x"], imaging: DrawnImaging, rng: np.random.Generator
) -> Float[NDArray[np.float32], "z y x"]:
    """Empty borders, the file's scale and offset, and its 256 steps where it has them."""
    voxels = np.ascontiguousarray(voxels)
    middle = float(np.median(voxels[::3, ::3, ::3]))
    spread = 1.4826 * float(np.median(np.abs(voxels[::3, ::3, ::3] - middle)))
    voxels -= np.float32(middle)
    voxels *= np.float32(1 / max(spread, 1e-12))
    if imaging.border:
        _fill_border(voxels, imaging, rng)
    if imaging.as_bytes:
        low, high = np.quantile(voxels[::2, ::3, ::3], (0.0005, 0.9995))
        voxels = np.clip(np.round((voxels - low) * (255 / max(float(high - low), 1e-6))), 0, 255)
        voxels = voxels * np.float32((high - low) / 255) + np.float32(low)
    voxels *= np.float32(imaging.scale)
    voxels += np.float32(imaging.offset * imaging.scale)
    return np.asarray(voxels, np.float32)


def _fill_border(voxels: Float[NDArray[np.float32], "z y x"], imaging: DrawnImaging, rng: np.random.Generator) -> None:
    """Beyond an oblique plane near one side there is no data."""
    depth, height, width = voxels.shape
    along_y, at_end = bool(rng.uniform() < 0.5), bool(rng.uniform() < 0.5)
    size = height if along_y else width
    edge = float(rng.uniform(0.02, 0.25)) * size
    slope = float(np.tan(np.radians(rng.uniform(-30, 30))))
    across = float(np.tan(np.radians(rng.uniform(-4, 4))))
    z = np.arange(depth, dtype=np.float32)[:, None, None] - 0.5 * depth
    y = np.arange(height, dtype=np.float32)[None, :, None]
    x = np.arange(width, dtype=np.float32)[None, None, :]
    on, other = (y, x - 0.5 * width) if along_y else (x, y - 0.5 * height)
    place = size - 1 - on if at_end else on
    empty = place < edge + slope * z + across * other
    value = {"zero": -imaging.offset, "mean": 0.0, "grey": float(rng.uniform(-2, 2))}[imaging.border]
    quiet = np.float32(rng.uniform(0, 0.3)) if imaging.border == "grey" else np.float32(0)
    np.copyto(voxels, np.float32(value) + quiet * voxels, where=empty)


@functools.lru_cache(maxsize=16)
def background(path: str, spacing_angstrom: float) -> Surveyed:
    """A tomogram with its statistics, its voxels taken to be of the phantoms' size.

    Raises:
        InputError: it cannot be read.
    """
    return surveyed(Volume.open(path, spacing_angstrom=spacing_angstrom))


def background_box(
    config: DrawConfig, shape_zyx: tuple[int, int, int], rng: np.random.Generator
) -> Float[NDArray[np.float32], "z y x"]:
    """A random box of one of the backgrounds in units of its robust deviation, its median 0.

    Mirrored where the tomogram is smaller; what is empty in it is 0.
    """
    volume = background(config.backgrounds[int(rng.integers(len(config.backgrounds)))], config.spacing_angstrom)
    starts = [int(rng.integers(max(n - w, 0) + 1)) for n, w in zip(volume.grid.shape_zyx, shape_zyx, strict=True)]
    box = [slice(s, min(s + w, n)) for s, w, n in zip(starts, shape_zyx, volume.grid.shape_zyx, strict=True)]
    # Empty voxels are NaN in a volume that was gone through, which reading as a whole would refuse.
    voxels = np.asarray(volume.voxels[tuple(box)], np.float32)
    some = voxels[np.isfinite(voxels)]
    if not len(some):
        return np.zeros(shape_zyx, np.float32)
    middle = float(np.median(some[:: max(1, len(some) // 200_000)]))
    spread = 1.4826 * float(np.median(np.abs(some[:: max(1, len(some) // 200_000)] - middle)))
    voxels = np.nan_to_num((voxels - middle) / max(spread, 1e-30), nan=0.0, posinf=0.0, neginf=0.0)
    missing = [(0, w - n) for w, n in zip(shape_zyx, voxels.shape, strict=True)]
    return np.asarray(np.pad(voxels, missing, mode="symmetric"), np.float32)
