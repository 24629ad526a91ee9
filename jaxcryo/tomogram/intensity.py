"""How a tomogram's intensities are distributed: their scale, and whether particles are dark or bright."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from einops import reduce

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError

_BLOCK_ANGSTROM = 120.0
"""Means of blocks as large as a particle: what is smaller is mostly noise, whose distribution has no side."""
_SLABS = 12
_LEAST_SKEWNESS = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intensities:
    """Of a tomogram's voxels, and the skewness of the means of its blocks: below 0 where dark things stand out."""

    mean: float
    std: float
    skewness: float


def measure(volume: Volume) -> Intensities:
    """By some slabs, evenly spread in z.

    Raises:
        InputError: all voxels are equal, or slices cannot be read.
    """
    depth, height, width = volume.grid.shape_zyx
    block = max(round(_BLOCK_ANGSTROM / volume.grid.spacing_angstrom), 1)
    z, y, x = (min(block, n) for n in (depth, height, width))
    starts = np.unique(np.linspace(0, depth - z, min(_SLABS, max(depth // z, 1))).astype(int)).tolist()
    sums = np.zeros(3)
    means = []
    for start in starts:
        slab = volume.read(start, start + z).astype(np.float64)
        sums += slab.size, slab.sum(), np.square(slab).sum()
        whole = slab[:, : height // y * y, : width // x * x]
        means.append(reduce(whole, "z (h y) (w x) -> h w", "mean", y=y, x=x).ravel())
    mean = float(sums[1] / sums[0])
    std = float(np.sqrt(max(sums[2] / sums[0] - mean**2, 0.0)))
    if not std > 1e-6 * abs(mean):
        raise InputError(f"{volume.name}: every voxel is {mean:g}; expected a tomogram: reconstruct or copy it again")
    blocks = np.concatenate(means)
    deviation = (blocks - blocks.mean()) / (blocks.std() or 1.0)
    return Intensities(mean=mean, std=std, skewness=float((deviation**3).mean()))


def are_opposite(skewness: float, other: float) -> bool:
    """Whether two tomograms clearly differ in what stands out, dark things or bright ones."""
    return min(abs(skewness), abs(other)) > _LEAST_SKEWNESS and skewness * other < 0


def of_opposite_contrast(skewness: Mapping[str, float]) -> list[str]:
    """The tomograms whose contrast is opposite to that of most."""
    usual = float(np.median(list(skewness.values())))
    return [name for name, own in skewness.items() if are_opposite(own, usual)]
