"""Pieces of tomograms that particles are put into."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume
from jaxcryo.phantom.settings import DrawConfig
from jaxcryo.tomogram.statistics import Surveyed, surveyed

BACKGROUND_SHARE = 0.6
"""Of phantoms that lie on a background where there are any; the others teach what no background shows."""


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
