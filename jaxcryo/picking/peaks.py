"""Peaks of heatmaps: voxels that are the largest of a cube around them (paper section 2.6).

Comparing every voxel with its whole cube is not needed. Side k = 2 r + 1; cells of s = (r + 1) // 2 voxels are so
small that the cube of each of a cell's voxels covers the neighbouring cells entirely. So only a cell whose maximum
no neighbour exceeds can hold a peak, and of the 2 s ≤ r + 1 voxels long blocks of cells each holds at most one. What
remains are few blocks; the largest voxel of each is compared with its cube.

Of equal voxels the first in z, y, x order counts as the larger one. A plateau gives one peak, and which one does
not depend on how the volume is cut into slabs.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from jaxcryo.errors import InputError
from jaxcryo.picking.stitch import Slab

_LOGGER = logging.getLogger(__name__)

SLOTS = 4096
STEP_SLICES = 8
"""Decided at a time: always as many, so that nothing is compiled again within a tomogram."""

OnSlab = Callable[[Slab], object]
"""Called with each finished slab of heatmaps, from the first slice to the last."""
Scalar = Int[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peaks:
    """Voxels of the volume, the channel of each, the heatmap's value there, and the offset from center to top."""

    zyx_voxel: Int[NDArray[np.int64], "n 3"]
    offset_zyx_voxel: Float[NDArray[np.float64], "n 3"]
    type_index: Int[NDArray[np.int64], "n"]
    score: Float[NDArray[np.float64], "n"]

    def __len__(self) -> int:
        return len(self.type_index)

    def select(self, keep: Bool[NDArray[np.bool_], "n"]) -> Peaks:
        """Those that a mask names."""
        return Peaks(
            zyx_voxel=self.zyx_voxel[keep],
            offset_zyx_voxel=self.offset_zyx_voxel[keep],
            type_index=self.type_index[keep],
            score=self.score[keep],
        )


def find_peaks(
    slabs: Iterable[Slab],
    thresholds: Sequence[float],
    *,
    nms_voxel: int = 7,
    first: int | None = None,
    slots: int = SLOTS,
    on_slab: OnSlab | None = None,
) -> Iterator[Peaks]:
    """The peaks of consecutive slabs above their channel's threshold, as soon as they are certain.

    Searches the slices from `first` on, or all. The slabs may begin up to r slices earlier, for comparison.

    The peaks are those of the whole volume, whatever the slabs' heights: a fixed number is searched at a time, with
    the r slices before and after them. Outside the slabs everything is lower. If there are more candidates than
    slots, the slots are doubled until all fit. `on_slab` sees each slab before it is searched.

    Raises:
        InputError: the cube's side is not odd and above 1, or a heatmap is not finite.
    """
    if nms_voxel < 3 or nms_voxel % 2 == 0:
        raise InputError(f"the side of the cube of a peak is {nms_voxel} voxels; expected an odd number from 3 up")
    radius = nms_voxel // 2
    full = STEP_SLICES + 2 * radius
    limits = jnp.asarray(_rounded_down(thresholds))
    block: Float[Array, "c z y x"] | None = None
    z, filled = 0, 0
    for slab in slabs:
        if on_slab is not None:
            on_slab(slab)
        if block is None:
            z = (slab.z_start if first is None else first) - radius
            filled, block = slab.z_start - z, _outside(slab.heatmap, full)
        height, taken = slab.heatmap.shape[1], 0
        while taken < height:
            count = min(height - taken, full - filled)
            block = _put(block, slab.heatmap, taken, filled, count=count)
            taken, filled = taken + count, filled + count
            if filled == full:
                yield _decided(block, limits, z, nms_voxel, slots)
                z, filled, block = z + STEP_SLICES, 2 * radius, _advance(block)
        del slab  # before the next one is made
    while block is not None and filled > radius:
        block = _put(block, _outside(block, full - filled), 0, filled, count=full - filled)
        yield _decided(block, limits, z, nms_voxel, slots)
        z, filled, block = z + STEP_SLICES, filled - STEP_SLICES, _advance(block)


def collect_peaks(parts: Iterable[Peaks]) -> Peaks:
    """All peaks in one, by type and then in z, y, x order."""
    parts = list(parts)
    zyx = np.concatenate([np.zeros((0, 3), np.int64), *(p.zyx_voxel for p in parts)])
    offset = np.concatenate([np.zeros((0, 3)), *(p.offset_zyx_voxel for p in parts)])
    type_index = np.concatenate([np.zeros(0, np.int64), *(p.type_index for p in parts)])
    score = np.concatenate([np.zeros(0), *(p.score for p in parts)])
    order = np.lexsort((zyx[:, 2], zyx[:, 1], zyx[:, 0], type_index))
    return Peaks(zyx_voxel=zyx[order], offset_zyx_voxel=offset[order], type_index=type_index[order], score=score[order])


def merge_close(
    positions: Float[ArrayLike, "n 3"],
    type_index: Int[NDArray[np.int64], "n"],
    score: Float[NDArray[np.float64], "n"],
    radii: Sequence[float],
) -> Bool[NDArray[np.bool_], "n"]:
    """Which positions stay when, best first, each removes those of its type that are closer than the type's radius.

    Radii are in the unit of the positions; 0 removes none. Of equal scores the first counts as the better one.
    Leaving out all scores below some value beforehand or afterwards is the same, since only better ones remove.
    """
    positions = np.asarray(positions, np.float64).reshape(-1, 3)
    keep = np.ones(len(positions), np.bool_)
    for index, radius in enumerate(radii):
        members = np.flatnonzero(type_index == index)
        if radius <= 0 or len(members) < 2:
            continue
        members = members[np.argsort(-score[members], kind="stable")]
        points = positions[members]
        # The tree also returns points at exactly this distance; these stay.
        pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
        pairs = pairs[np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1) < radius]
        worse_of: dict[int, list[int]] = {}
        for better, worse in np.sort(pairs, axis=1).tolist():
            worse_of.setdefault(better, []).append(worse)
        stays = np.ones(len(members), np.bool_)
        for better in sorted(worse_of):
            if stays[better]:
                stays[worse_of[better]] = False
        keep[members[~stays]] = False
    return keep


class _Found(NamedTuple):
    is_peak: Bool[Array, "slots"]
    type_index: Int[Array, "slots"]
    zyx: Int[Array, "slots 3"]
    offset_zyx: Float[Array, "slots 3"]
    score: Float[Array, "slots"]


def _decided(
    block: Float[Array, "c z y x"], limits: Float[Array, "c"], z_origin: int, nms_voxel: int, slots: int
) -> Peaks:
    """The peaks among all but the first and last r slices; the block starts at `z_origin`.

    Slots are doubled for this block alone: XLA may round otherwise with another number of them, and what is found in a
    block must not depend on those before it.
    """
    cells, finite = _largest_of_cells(block, side=(nms_voxel // 2 + 1) // 2)
    blocks, count = _candidates(cells, limits)
    if not bool(finite):
        raise InputError(
            f"heatmaps are NaN or infinite near slice {z_origin + nms_voxel // 2}; expected finite values: run the "
            "network in float32, or check its weights"
        )
    candidates = int(count)
    while slots < candidates:
        slots *= 2
        _LOGGER.info("%d candidates for peaks in %d slices: %d slots", candidates, block.shape[1], slots)
    found = _check(block, blocks, nms_voxel=nms_voxel, slots=slots)
    is_peak = np.asarray(found.is_peak)
    return Peaks(
        zyx_voxel=np.asarray(found.zyx)[is_peak].astype(np.int64) + np.array([z_origin, 0, 0]),
        offset_zyx_voxel=np.asarray(found.offset_zyx)[is_peak].astype(np.float64),
        type_index=np.asarray(found.type_index)[is_peak].astype(np.int64),
        score=np.asarray(found.score)[is_peak].astype(np.float64),
    )


# The steps are compiled apart: in one piece they took 1.6 times as long on a CPU, with or without barriers.


@functools.partial(jax.jit, static_argnames=("side",))
def _largest_of_cells(block: Float[Array, "c z y x"], *, side: int) -> tuple[Float[Array, "c z y x"], Bool[Array, ""]]:
    """The maximum of each cell, and whether everything is finite (but -inf, which stands for the outside)."""
    cells = block
    for axis in (1, 2, 3):
        cells = _maximum_of_groups(cells, side, axis)
    return cells, jnp.all(cells < jnp.inf)  # the maximum of anything and NaN is NaN


@jax.jit
def _candidates(
    cells: Float[Array, "c z y x"], limits: Float[Array, "c"]
) -> tuple[Bool[Array, "c z2 y2 x2"], Int[Array, ""]]:
    """Which blocks of 2 x 2 x 2 cells may hold a peak, and how many they are."""
    may_hold = _unexceeded(cells) & (cells > limits[:, None, None, None])
    pairs, odd = (1, 2, 2, 2), [(0, n % 2) for n in cells.shape]
    blocks = lax.reduce_window(may_hold, False, lax.bitwise_or, pairs, pairs, odd)
    return blocks, blocks.sum()


@functools.partial(jax.jit, static_argnames=("nms_voxel", "slots"))
def _check(block: Float[Array, "c z y x"], may_hold: Bool[Array, "c z y x"], *, nms_voxel: int, slots: int) -> _Found:
    """Compares the largest voxel of each block that may hold a peak with its cube."""
    radius = nms_voxel // 2
    side = (radius + 1) // 2 * 2
    channel, *block_zyx = jnp.nonzero(may_hold, size=slots, fill_value=0)
    check = functools.partial(_check_block, block, side=side, radius=radius)
    stands, zyx, offset, score = jax.vmap(check)(channel, [side * i for i in block_zyx])
    decided = (zyx[:, 0] >= radius) & (zyx[:, 0] < block.shape[1] - radius)
    used = jnp.arange(slots) < may_hold.sum()
    return _Found(is_peak=stands & decided & used, type_index=channel, zyx=zyx, offset_zyx=offset, score=score)


def _check_block(
    heatmap: Float[Array, "c z y x"], channel: Scalar, block_zyx: Sequence[Scalar], *, side: int, radius: int
) -> tuple[Bool[Array, ""], Int[Array, "3"], Float[Array, "3"], Float[Array, ""]]:
    """Whether the cube of the block's first largest voxel holds no larger one; the voxel, its offset and its value."""
    values, zyx = _cube(heatmap, channel, block_zyx, side)
    inside = functools.reduce(jnp.logical_and, [i >= start for i, start in zip(zyx, block_zyx, strict=True)])
    best = jnp.argmax(jnp.where(inside, values, -jnp.inf).ravel())
    score, at = values.ravel()[best], [i.ravel()[best] for i in zyx]
    values, zyx = _cube(heatmap, channel, [i - radius for i in at], 2 * radius + 1)
    z, y, x = (i - center for i, center in zip(zyx, at, strict=True))
    near = (jnp.abs(z) <= radius) & (jnp.abs(y) <= radius) & (jnp.abs(x) <= radius)
    before = (z < 0) | ((z == 0) & ((y < 0) | ((y == 0) & (x < 0))))
    stands = ~jnp.any(near & ((values > score) | (before & (values == score))))
    whole = values.shape == (2 * radius + 1,) * 3
    offset = jnp.where(jnp.all(near), _top(values, radius), 0.0) if whole else jnp.zeros(3)
    return stands, jnp.stack(at), offset, score


def _top(values: Float[Array, "k k k"], radius: int) -> Float[Array, "3"]:
    """Where the paraboloid that fits the cube best is highest, from the cube's centre along z, y, x.

    Along each axis a parabola through the means of the cube's planes. At most half the radius, and 0 where there is no
    top, as at the volume's rim: on phantoms the distance to the truth is a quarter smaller with it than without.
    """
    n = jnp.arange(-radius, radius + 1, dtype=values.dtype)
    squares, fourth = jnp.sum(n**2), jnp.sum(n**4)
    profiles = jnp.stack([values.mean((1, 2)), values.mean((0, 2)), values.mean((0, 1))])
    slope = profiles @ n / squares
    bend = (len(n) * (profiles @ n**2) - squares * profiles.sum(1)) / (len(n) * fourth - squares**2)
    offset = jnp.clip(-slope / (2 * jnp.where(bend < 0, bend, -1)), -radius / 2, radius / 2)
    return jnp.where((bend < 0) & jnp.isfinite(offset), offset, 0.0)


def _cube(
    heatmap: Float[Array, "c z y x"], channel: Scalar, corner_zyx: Sequence[Scalar], side: int
) -> tuple[Float[Array, "d h w"], list[Int[Array, "d h w"]]]:
    """The values and the z, y, x indices of a cube, moved inwards where it would reach over the rim."""
    sides = [min(side, n) for n in heatmap.shape[1:]]
    last = [n - s for n, s in zip(heatmap.shape[1:], sides, strict=True)]
    corner = [jnp.clip(i, 0, end) for i, end in zip(corner_zyx, last, strict=True)]
    values = lax.dynamic_slice(heatmap, (channel, *corner), (1, *sides))[0]
    return values, [start + lax.broadcasted_iota(start.dtype, sides, axis) for axis, start in enumerate(corner)]


def _unexceeded(cells: Float[Array, "c z y x"]) -> Bool[Array, "c z y x"]:
    """Where no neighbouring cell's maximum is larger, nor as large in the layer before: its voxels all come first."""
    padded = jnp.pad(cells, ((0, 0), (1, 1), (1, 1), (1, 1)), constant_values=-jnp.inf)
    around = padded
    for axis in (3, 2):
        n = around.shape[axis]
        parts = [lax.slice_in_dim(around, i, n - 2 + i, axis=axis) for i in range(3)]
        around = functools.reduce(jnp.maximum, parts)
    return (cells > around[:, :-2]) & (cells >= around[:, 1:-1]) & (cells >= around[:, 2:])


def _maximum_of_groups(values: Float[Array, "c z y x"], size: int, axis: int) -> Float[Array, "c z2 y2 x2"]:
    """The maximum of each `size` voxels along an axis; the last group may be shorter.

    On CPUs XLA is twice as fast with maxima of strided slices as with `reduce_window`, and ten times as fast as with
    a reduction over an axis of that size.
    """
    groups = -(-values.shape[axis] // size)
    parts = []
    for i in range(size):
        part = lax.slice_in_dim(values, i, None, size, axis)
        missing = [(0, 0, 0)] * values.ndim
        missing[axis] = (0, groups - part.shape[axis], 0)
        parts.append(lax.pad(part, -jnp.inf, missing))
    return functools.reduce(jnp.maximum, parts)


@functools.partial(jax.jit, static_argnames=("count",), donate_argnames=("block",))
def _put(
    block: Float[Array, "c z y x"],
    slab: Float[Array, "c _ y x"],
    start: int | Int[Array, ""],
    at: int | Int[Array, ""],
    *,
    count: int,
) -> Float[Array, "c z y x"]:
    """Some of a slab's slices into the block, in place: fresh memory would cost more than the search for peaks."""
    return lax.dynamic_update_slice_in_dim(block, lax.dynamic_slice_in_dim(slab, start, count, axis=1), at, axis=1)


@functools.partial(jax.jit, donate_argnames=("block",))
def _advance(block: Float[Array, "c z y x"]) -> Float[Array, "c z y x"]:
    """The last slices to the front: they are the ones before and among the next to be decided."""

    def move(z: Scalar, block: Float[Array, "c z y x"]) -> Float[Array, "c z y x"]:
        return block.at[:, z].set(block[:, z + STEP_SLICES])

    return lax.fori_loop(0, block.shape[1] - STEP_SLICES, move, block)


def _outside(like: Float[Array | np.ndarray, "c _ y x"], slices: int) -> Float[Array, "c z y x"]:
    return jnp.full((like.shape[0], slices, *like.shape[2:]), -jnp.inf, like.dtype)


def _rounded_down(thresholds: Sequence[float]) -> Float[NDArray[np.float32], "c"]:
    """Thresholds as float32, never above the given values: a float32 score above one is then also above the other."""
    exact = np.asarray(thresholds, np.float64)
    rounded = exact.astype(np.float32)
    return np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded).astype(np.float32)
