"""A tomogram as images of its slices, small enough for one page."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from jaxcryo.domain import Volume
from jaxcryo.picking.reader import ReadSlices, SlabReader

BUDGET_BYTES = 15_000_000
"""Of all slices before base64, which makes a third more of them: 20 MB of a page's 30."""
_LARGEST_SIDE = 1024
_QUALITIES = (85, 75, 65, 55, 45)
"""Of JPEG: on the noise of tomograms it is as small as WebP at the same error, and written ten times as fast."""
_SAMPLES = 6
_SLAB_SLICES = 16
"""Read at a time."""
_TAIL_PERCENT = 0.3
_RESERVE = 1.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class SliceImages:
    """Gray JPEG images, first slice first; each pixel is the mean of a box of `bin_zyx` voxels."""

    bin_zyx: tuple[int, int, int]
    size_yx: tuple[int, int]
    """Pixels of an image. Voxels at the far edges that do not fill a box are left out."""
    black_white: tuple[float, float]
    """The voxel values that are shown as black and white."""
    jpegs: tuple[bytes, ...]


def slice_images(volume: Volume, *, budget_bytes: int = BUDGET_BYTES) -> SliceImages:
    """The slices, read slab by slab, as sharp as the budget allows: first the quality goes down, then the resolution.

    Raises:
        InputError: the volume cannot be read.
    """
    shape = volume.grid.shape_zyx
    for bin_zyx in _bins(shape):
        sample = _sampled(volume, bin_zyx)
        low, high = (float(v) for v in np.nanpercentile(sample, (_TAIL_PERCENT, 100 - _TAIL_PERCENT)))
        high = high if high > low else low + 1
        count = max(shape[0] // bin_zyx[0], 1)
        for quality in _QUALITIES:
            jpegs = [_jpeg(s, low, high, quality) for s in sample]
            if _RESERVE * count * sum(map(len, jpegs)) / len(jpegs) <= budget_bytes:
                every = tuple(_jpeg(s, low, high, quality) for s in _binned_slices(volume, bin_zyx))
                return SliceImages(
                    bin_zyx=bin_zyx, size_yx=sample[0].shape, black_white=(low, high), jpegs=every
                )  # fmt: skip
    raise AssertionError("single pixels fit every budget")


def _bins(shape_zyx: tuple[int, int, int]) -> Iterator[tuple[int, int, int]]:
    """From the finest resolution down, in y and x and in z by turns."""
    yx = math.ceil(max(shape_zyx[1:]) / _LARGEST_SIDE)
    z = 1
    for step in itertools.count():
        yield min(z, shape_zyx[0]), min(yx, shape_zyx[1]), min(yx, shape_zyx[2])
        z, yx = (z + step % 2, yx + (step + 1) % 2)


def _sampled(volume: Volume, bin_zyx: tuple[int, int, int]) -> list[Float[NDArray[np.float32], "y x"]]:
    """Slices from the whole volume."""
    depth, height = volume.grid.shape_zyx[0], bin_zyx[0]
    starts = np.unique(np.linspace(0, max(depth - height, 0), _SAMPLES + 2).astype(int)[1:-1])
    return [_mean_of_boxes(volume.read(z, z + height), bin_zyx)[0] for z in starts.tolist()]


def _binned_slices(volume: Volume, bin_zyx: tuple[int, int, int]) -> Iterator[Float[NDArray[np.float32], "y x"]]:
    read: ReadSlices = SlabReader(volume).stream()
    height = bin_zyx[0]
    whole = volume.grid.shape_zyx[0] // height * height
    slab = max(_SLAB_SLICES // height, 1) * height
    for z in range(0, whole, slab):
        yield from _mean_of_boxes(read(z, min(z + slab, whole)), bin_zyx)


def _mean_of_boxes(
    voxels: Float[NDArray[np.float32], "z y x"], bin_zyx: tuple[int, int, int]
) -> Float[NDArray[np.float32], "z2 y2 x2"]:
    if bin_zyx == (1, 1, 1):
        return voxels
    counts = [n // b for n, b in zip(voxels.shape, bin_zyx, strict=True)]
    whole = voxels[tuple(slice(c * b) for c, b in zip(counts, bin_zyx, strict=True))]
    split = [n for pair in zip(counts, bin_zyx, strict=True) for n in pair]
    return whole.reshape(split).mean(axis=(1, 3, 5))


def _jpeg(pixels: Float[NDArray[np.float32], "y x"], low: float, high: float, quality: int) -> bytes:
    pixels = np.nan_to_num(pixels, nan=low)
    gray: UInt8[NDArray[np.uint8], "y x"] = np.clip((pixels - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=quality)
    return file.getvalue()
