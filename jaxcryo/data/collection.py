"""The tomograms and picks of a training, laid out as arrays that a jitted function can draw samples from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from numpy.typing import NDArray

from jaxcryo.config import CropConfig, IntensityConfig
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.tomogram.normalization import normalization
from jaxcryo.tomogram.padding import padding_needed
from jaxcryo.tomogram.statistics import surveyed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Collection:
    """Normalized volumes padded to one shape, and their picks; a copy for each device has a first axis for devices.

    Picks are stored twice: by run (what a window shows) and by type (what to draw a window around).
    """

    volumes: Float[Array, "*k r z y x"] | None
    """None if windows are cut from the files as they are needed."""
    shapes_zyx: Int[Array, "*k r 3"]
    """At least a window's shape: smaller volumes are padded at their ends."""
    picks_zyx_voxel: Float[Array, "*k r p 3"]
    """Padded with -1e6, which is in no window."""
    picks_type: Int[Array, "*k r p"]
    flat_zyx_voxel: Float[Array, "*k n 3"]
    flat_run: Int[Array, "*k n"]
    by_type: Int[Array, "*k t m"]
    """Rows of the flat picks, for each type that occurs, padded; only the first `type_count` of a row are valid."""
    type_count: Int[Array, "*k t"]
    known: UInt8[Array, "*k r c z y x"] | None = None
    """1 where the target is known; None if it is known everywhere."""


def collect(
    volumes: Sequence[Volume],
    picks: Sequence[Picks],
    intensity: IntensityConfig,
    patch_zyx: tuple[int, int, int],
    *,
    rounded: bool = False,
    load: bool = True,
    known: Sequence[UInt8[NDArray[np.uint8], "c z y x"]] | None = None,
    places: Sequence[Float[NDArray[np.float64], "n 3"]] | None = None,
) -> Collection:
    """Lays picks out, and loads and normalizes the volumes unless they stay where they are.

    `known` says which targets of each volume are known. `places` are further positions (z, y, x in voxels) to draw
    windows around, as if they were picks of one more type.

    Raises:
        InputError: as `check_sizes`, or a volume cannot be read.
    """
    check_sizes(volumes, picks, patch_zyx)
    shapes = np.maximum(np.array([v.grid.shape_zyx for v in volumes], np.int32), patch_zyx)
    stack = None
    if load:
        stack = np.zeros((len(volumes), *shapes.max(axis=0)), np.float32)
        for i, v in enumerate(volumes):
            z, y, x = v.grid.shape_zyx
            v = v if intensity.rule == "fixed" else surveyed(v)
            stack[i, :z, :y, :x] = normalization(v, intensity)(v.load())
    centers = [
        (v.grid.to_label_voxel if rounded else v.grid.to_voxel)(p.xyz_angstrom)
        for v, p in zip(volumes, picks, strict=True)
    ]
    longest = max(map(len, picks))
    by_run = np.full((len(volumes), longest, 3), -1e6, np.float32)
    kinds = np.zeros((len(volumes), longest), np.int32)
    for i, (c, p) in enumerate(zip(centers, picks, strict=True)):
        by_run[i, : len(p)], kinds[i, : len(p)] = c, p.type_index
    flat_type = np.concatenate([p.type_index for p in picks])
    flat, flat_run = np.concatenate(centers), np.repeat(np.arange(len(picks)), [len(p) for p in picks])
    if places is not None:
        count = [len(p) for p in places]
        flat = np.concatenate([flat, *places])
        flat_run = np.concatenate([flat_run, np.repeat(np.arange(len(places)), count)])
        flat_type = np.concatenate([flat_type, np.full(sum(count), -1)])
    groups = [np.flatnonzero(flat_type == t) for t in np.unique(flat_type)]
    by_type = np.zeros((len(groups), max(map(len, groups))), np.int32)
    for row, group in zip(by_type, groups, strict=True):
        row[: len(group)] = group
    return Collection(
        volumes=None if stack is None else jnp.asarray(stack),
        shapes_zyx=jnp.asarray(shapes),
        picks_zyx_voxel=jnp.asarray(by_run),
        picks_type=jnp.asarray(kinds),
        flat_zyx_voxel=jnp.asarray(flat, jnp.float32),
        flat_run=jnp.asarray(flat_run),
        by_type=jnp.asarray(by_type),
        type_count=jnp.asarray([len(g) for g in groups]),
        known=None if known is None else jnp.asarray(_stacked(known, tuple(shapes.max(axis=0).tolist()))),
    )


def _stacked(
    known: Sequence[UInt8[NDArray[np.uint8], "c z y x"]], shape_zyx: tuple[int, ...]
) -> UInt8[NDArray[np.uint8], "r c z y x"]:
    """Padded to one shape; beyond a volume nothing counts as known."""
    stack = np.zeros((len(known), len(known[0]), *shape_zyx), np.uint8)
    for row, own in zip(stack, known, strict=True):
        _, z, y, x = own.shape
        row[:, :z, :y, :x] = own
    return stack


def check_sizes(volumes: Sequence[Volume], picks: Sequence[Picks], patch_zyx: tuple[int, int, int]) -> None:
    """Raises InputError if a volume is much smaller than a window, or there are no picks at all; reads no voxel."""
    for v in volumes:
        padding_needed(v.name, v.grid.shape_zyx, patch_zyx)
    if sum(map(len, picks)) == 0:
        raise InputError("the training runs have no picks of any of the particle types; check --data and the names")


def epoch_grid(
    shapes_zyx: Sequence[tuple[int, int, int]], patch_zyx: tuple[int, int, int], config: CropConfig
) -> Int[NDArray[np.int32], "g 4"]:
    """The windows of one epoch, as rows of run, z, y, x (published `get_stride` and `get_indices`)."""
    rows: list[NDArray[np.int32]] = []
    for run, shape in enumerate(shapes_zyx):
        axes = []
        for size, window in zip(shape, patch_zyx, strict=True):
            count = max(round((size - window) / (window * config.stride) + 1), 1)
            step = (size - window) // (count - 1) if count > 1 else 0
            axes.append(np.arange(count) * step)
        starts = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        rows.append(np.concatenate([np.full((len(starts), 1), run), starts], axis=1).astype(np.int32))
    return np.concatenate(rows)


def rows_of_step(
    grid: Int[NDArray[np.int32], "g 4"], *, seed: int, step: int, batch: int
) -> Int[NDArray[np.int32], "b 4"]:
    """The grid rows of one step: every epoch is a new permutation, of which an incomplete last batch is dropped.

    A function of its arguments alone, so that a training can resume anywhere and on any number of devices.
    """
    steps = max(len(grid) // batch, 1)
    epoch, place = divmod(step, steps)
    order = np.random.default_rng([seed, epoch]).permutation(len(grid))
    return grid[np.resize(order, steps * batch)[place * batch : (place + 1) * batch]]
