"""Heatmaps as small images, made slab by slab: full-size heatmaps are never kept."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from jaxcryo.picking.stitch import Slab

_LARGEST_SIDE = 192
_MOST_SLICES = 128
_MOST_PIXELS = 24_000_000
"""Of all slices and types; a tenth of that in bytes remains where heatmaps are mostly empty."""
BUDGET_BYTES = 4_500_000
"""Of all images, before base64. What is beyond it becomes coarser."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlayImages:
    """Grey PNG images, first slice first; in each the types' heatmaps one below the other.

    A pixel is the largest value of a box of `bin_zyx` voxels times 255.
    """

    bin_zyx: tuple[int, int, int]
    size_yx: tuple[int, int]
    """Of one type's heatmap."""
    pngs: tuple[bytes, ...]


class Overlay:
    """Takes the slabs of a volume in order and keeps them as images; values up to `floor` become 0.

    The first slab may begin at any multiple of `bin_zyx[0]`, and what came to another one before be given as `pngs`.
    """

    def __init__(
        self, shape_zyx: tuple[int, int, int], classes: int, *, floor: float, pngs: Sequence[bytes] = ()
    ) -> None:
        self.bin_zyx = _bins(shape_zyx, classes)
        self._shape_zyx = shape_zyx
        self._floor = floor
        self._size_yx = (math.ceil(shape_zyx[1] / self.bin_zyx[1]), math.ceil(shape_zyx[2] / self.bin_zyx[2]))
        self._empty = np.zeros((classes, *self._size_yx), np.float32)
        self._open = self._empty
        self._pngs = list(pngs)

    @property
    def pngs(self) -> tuple[bytes, ...]:
        """The images of what came so far, at the full resolution."""
        return tuple(self._pngs)

    def add(self, slab: Slab) -> None:
        """The next slab."""
        small = np.asarray(_largest_of_boxes(slab.heatmap, side_yx=self.bin_zyx[1:]))
        height = self.bin_zyx[0]
        for i in range(small.shape[1]):
            z = slab.z_start + i
            self._open = np.maximum(self._open, small[:, i])
            if (z + 1) % height == 0 or z + 1 == self._shape_zyx[0]:
                self._pngs.append(_png(np.where(self._open > self._floor, self._open, 0)))
                self._open = self._empty

    def images(self, *, budget_bytes: int = BUDGET_BYTES) -> OverlayImages:
        """The images so far."""
        images = OverlayImages(bin_zyx=self.bin_zyx, size_yx=self._size_yx, pngs=tuple(self._pngs))
        while sum(map(len, images.pngs)) > budget_bytes and max(images.size_yx) > 1:
            images = _coarser(images)
        return images


def _bins(shape_zyx: tuple[int, int, int], classes: int) -> tuple[int, int, int]:
    z = math.ceil(shape_zyx[0] / _MOST_SLICES)
    yx = math.ceil(max(shape_zyx[1:]) / _LARGEST_SIDE)
    while classes * math.prod(math.ceil(n / b) for n, b in zip(shape_zyx, (z, yx, yx), strict=True)) > _MOST_PIXELS:
        yx += 1
    return z, yx, yx


@functools.partial(jax.jit, static_argnames=("side_yx",))
def _largest_of_boxes(heatmap: Float[Array, "c z y x"], *, side_yx: tuple[int, int]) -> Float[Array, "c z h w"]:
    """Strided slices, as in the search for peaks: windowed reductions are far slower on CPUs."""
    for axis, side in zip((3, 2), side_yx[::-1], strict=True):
        missing = [(0, 0, 0)] * 4
        missing[axis] = (0, -heatmap.shape[axis] % side, 0)
        padded = lax.pad(heatmap, -jnp.inf, missing)
        parts = [lax.slice_in_dim(padded, i, None, side, axis) for i in range(side)]
        heatmap = functools.reduce(jnp.maximum, parts)
    return heatmap


def _coarser(images: OverlayImages) -> OverlayImages:
    """Boxes of twice the side in y and x."""
    z, y, x = images.bin_zyx
    height, width = images.size_yx
    pngs = []
    for png in images.pngs:
        old = np.asarray(Image.open(io.BytesIO(png))).reshape(-1, height, width)
        padded = np.pad(old, ((0, 0), (0, height % 2), (0, width % 2)))
        pairs = padded.reshape(len(old), math.ceil(height / 2), 2, math.ceil(width / 2), 2)
        pngs.append(_gray_png(pairs.max(axis=(2, 4))))
    size_yx = (math.ceil(height / 2), math.ceil(width / 2))
    return OverlayImages(bin_zyx=(z, 2 * y, 2 * x), size_yx=size_yx, pngs=tuple(pngs))


def _png(heatmap: Float[NDArray[np.float32], "c h w"]) -> bytes:
    return _gray_png(np.clip(np.rint(heatmap * 255), 0, 255).astype(np.uint8))


def _gray_png(heatmap: UInt8[NDArray[np.uint8], "c h w"]) -> bytes:
    """Mostly zeros, for which zlib's run lengths are both the smallest and the fastest."""
    file = io.BytesIO()
    Image.fromarray(heatmap.reshape(-1, heatmap.shape[2])).save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()
