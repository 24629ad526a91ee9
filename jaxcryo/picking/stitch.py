"""Runs a network on windows of a volume, and joins them to heatmaps of the whole volume, streaming along z.

Memory holds a few slabs of the volume, whatever its depth.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.picking.reader import ReadSlices, SlabReader
from jaxcryo.picking.windows import WindowPlan, plan_windows, weight_factors, weight_sums, windows_over
from jaxcryo.runtime.opened import Flips, OpenModel, model_failures
from jaxcryo.tomogram.normalization import normalization
from jaxcryo.tomogram.statistics import Note, surveyed

OnWindows = Callable[[int, int], None]
"""Called with the number of finished windows and the number of all."""

ChooseWindows = Callable[[WindowPlan], Bool[NDArray[np.bool_], "layers n"]]
"""Which windows of a plan to compute: for each start in z, those of `starts_yx`."""

# The device always has a batch to go on with, and progress is never further ahead of it than this.
_BATCHES_IN_FLIGHT = 2
_NUMPY_PADDING: dict[str, Literal["constant", "reflect"]] = {"zeros": "constant", "reflect": "reflect"}
# Of one stream; a stride that is longer comes in equal parts.
_MAX_SLAB_SLICES = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slab:
    """Heatmaps of consecutive slices, in voxels of the volume."""

    z_start: int
    heatmap: Float[Array | np.ndarray, "c z y x"]

    def within(self, start: int, stop: int) -> Slab | None:
        """Its slices from `start` up to `stop`; None where it has none of them."""
        first, last = max(start - self.z_start, 0), min(stop - self.z_start, self.heatmap.shape[1])
        if (first, last) == (0, self.heatmap.shape[1]):
            return self
        return Slab(z_start=self.z_start + first, heatmap=self.heatmap[:, first:last]) if first < last else None


def heatmap_slabs(
    volume: Volume,
    models: Sequence[OpenModel],
    *,
    slices: tuple[int, int] | None = None,
    on_windows: OnWindows | None = None,
    choose: ChooseWindows | None = None,
    note: Note = lambda sentence: None,
) -> Iterator[Slab]:
    """The mean of the models' heatmaps in consecutive slabs from the first slice to the last.

    With `slices` (from one up to another), only these, with the same values. Windows that `choose` leaves out are not
    computed; voxels that they cover have too low values, down to 0. Voxels without data are 0, so windows
    without any data are not computed either, which changes nothing; at the end `note` is told how many.

    Raises:
        InputError: no models, models that differ in their number of classes, a volume smaller than a window, or
            one that cannot be read.
        ModelError: a model fails.
    """
    if not models:
        raise InputError("no model was given; expected at least one")
    if len({e.classes for e in models}) > 1:
        counts = ", ".join(f"{e.name}: {e.classes}" for e in models)
        raise InputError(f"the models differ in their number of classes ({counts}); use those of one set of types")
    if any(e.intensity.rule != "fixed" for e in models):
        volume = surveyed(volume)
    reader = SlabReader(volume)
    plans = [plan_windows(volume.grid.shape_zyx, e.patch_zyx, e.stride_zyx) for e in models]
    if slices is not None:
        plans = [plan.of_slices(*slices) for plan in plans]
    if choose is not None:
        plans = [dataclasses.replace(plan, chosen=choose(plan)) for plan in plans]
    total = sum(plan.count for plan in plans)
    done_of = [0] * len(models)

    def progress_of(index: int) -> OnWindows:
        def progress(done: int, _: int) -> None:
            done_of[index] = done
            if on_windows is not None:
                on_windows(sum(done_of), total)

        return progress

    skipped = 0

    def skip(windows: int) -> None:
        nonlocal skipped
        skipped += windows

    def finish() -> None:
        if skipped:
            note(f"{volume.name}: {skipped} of {total} windows hold no data and were left out")

    streams = [
        stitched_slabs(volume, reader.stream(), model, plan=plan, on_windows=progress_of(i), on_skipped=skip)
        for i, (model, plan) in enumerate(zip(models, plans, strict=True))
    ]
    slabs = averaged_slabs(streams)
    return _where_data_is(slabs, reader.stream(), finish) if volume.has_gaps else slabs


def averaged_slabs(streams: Sequence[Iterator[Slab]]) -> Iterator[Slab]:
    """The mean of several streams of one volume, in slabs of the slices that all of them have come to."""
    return streams[0] if len(streams) == 1 else _averaged(streams)


def _averaged(streams: Sequence[Iterator[Slab]]) -> Iterator[Slab]:
    heads = list(map(next, streams))
    z = heads[0].z_start
    while True:
        ends = [head.z_start + head.heatmap.shape[1] for head in heads]
        stop = min(ends)
        offsets = np.array([z - head.z_start for head in heads], np.int32)
        yield Slab(z_start=z, heatmap=_mean(tuple(head.heatmap for head in heads), offsets, height=stop - z))
        z = stop
        for i, stream in enumerate(streams):
            if ends[i] == stop:
                heads[i] = _PASSED  # frees it before the next one is made
                head = next(stream, None)
                if head is None:
                    assert min(ends) == max(ends), "streams of one volume end together"
                    return
                heads[i] = head
                del head


def _where_data_is(slabs: Iterator[Slab], read: ReadSlices, finish: Callable[[], None]) -> Iterator[Slab]:
    """The slabs with 0 in voxels that hold no data; `finish` is called after the last one."""
    for slab in slabs:
        data = ~np.isnan(read(slab.z_start, slab.z_start + slab.heatmap.shape[1]))
        yield slab if data.all() else dataclasses.replace(slab, heatmap=jnp.where(data, slab.heatmap, 0))
        del slab  # before the next one is made
    finish()


_PASSED = Slab(z_start=0, heatmap=np.zeros((0, 0, 0, 0), np.float32))


def stitch(volume: Volume, models: Sequence[OpenModel]) -> Float[NDArray[np.float32], "c z y x"]:
    """The whole heatmap in memory, for small volumes; raises as `heatmap_slabs` does."""
    return np.concatenate([np.asarray(slab.heatmap) for slab in heatmap_slabs(volume, models)], axis=1)


class _Batch(NamedTuple):
    starts_yx: Int[Array, "b 2"]
    counted: Float[Array, "b"]
    """1, or 0 for the repeats that fill the last batch."""
    windows: int


def stitched_slabs(
    volume: Volume,
    read: ReadSlices,
    model: OpenModel,
    *,
    plan: WindowPlan | None = None,
    on_windows: OnWindows = lambda done, total: None,
    on_skipped: Callable[[int], None] = lambda windows: None,
) -> Iterator[Slab]:
    """One model's heatmaps: in each voxel the mean over windows, weighted by the voxel's place in the window.

    In a volume that has gaps, windows without any data are left out and told to `on_skipped`; voxels without data
    then have any value.

    `read` gives the volume's slices. Slabs are as high as the stride or a part of it, but for slices that are cropped
    from the first and the last ones: padding, and those that the plan does not want. Raises as `heatmap_slabs` does.
    """
    if plan is None:
        plan = plan_windows(volume.grid.shape_zyx, model.patch_zyx, model.stride_zyx)
    normalize, mode = normalization(volume, model.intensity), _NUMPY_PADDING[model.padding]
    predict = model.predict if isinstance(model.predict, Partial) else Partial(model.predict)
    weight_z, weight_yx = map(jnp.asarray, weight_factors(plan.patch_zyx))
    depth, stride = plan.patch_zyx[0], plan.stride_zyx[0]
    height = max(h for h in range(1, min(stride, _MAX_SLAB_SLICES) + 1) if stride % h == 0)
    z_profile, yx_map = weight_sums(plan)
    z_profile = np.pad(z_profile, (0, depth), constant_values=1)
    rows = slice(plan.y.pad_before, plan.y.pad_before + plan.y.size)
    columns = slice(plan.x.pad_before, plan.x.pad_before + plan.x.size)
    yx_cropped = jnp.asarray(yx_map[rows, columns])
    corner_yx = np.array([rows.start, columns.start], np.int32)
    sums = jnp.zeros((model.classes, depth, plan.y.padded, plan.x.padded), jnp.float32)

    flying: collections.deque[tuple[Array, int]] = collections.deque()
    done = 0

    def land() -> None:
        nonlocal done
        ready, windows = flying.popleft()
        ready.block_until_ready()
        done += windows
        on_windows(done, plan.count)

    for layer in range(len(plan.z.starts) + 1):
        last = layer == len(plan.z.starts)
        if not last:  # read while the device is still busy with the layer before
            voxels = read(*plan.slices_of_layer(layer))
            every = starts = plan.starts_of_layer(layer)
            if volume.has_gaps:
                starts = plan.starts_of_layer(layer, among=windows_over(plan, ~np.isnan(voxels)))
            slab = jnp.asarray(np.pad(normalize(voxels), plan.padding_of_layer(layer), mode=mode))
            del voxels
        with model_failures(model):
            while flying:
                land()
        z = plan.z.starts[layer - 1]  # slices that no window of this layer reaches are finished
        for start in range(z, z + depth if last else z + stride, height) if layer else ():
            heatmap = _finished(sums, jnp.asarray(z_profile[start : start + height]), yx_cropped, corner_yx)
            sums = _move_up(sums, height=height)
            wanted = Slab(z_start=start - plan.z.pad_before, heatmap=heatmap).within(*plan.slices)
            del heatmap
            if wanted is not None:
                yield wanted
            del wanted  # before the next one is made
        if last:
            return
        with model_failures(model):
            for batch in _batches(starts, model.batch):
                sums, ready = _add_batch(
                    predict, sums, slab, batch.starts_yx, batch.counted, weight_z, weight_yx, flips=model.flips
                )
                flying.append((ready, batch.windows))
                if len(flying) > _BATCHES_IN_FLIGHT:
                    land()
        if skipped := len(every) - len(starts):
            on_skipped(skipped)
            done += skipped
            on_windows(done, plan.count)


def _batches(starts: Int[NDArray[np.int32], "n 2"], size: int) -> list[_Batch]:
    batches = []
    for first in range(0, len(starts), size):
        part = starts[first : first + size]
        counted = np.arange(size) < len(part)
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        batches.append(_Batch(jnp.asarray(filled), jnp.asarray(counted, jnp.float32), len(part)))
    return batches


@functools.partial(jax.jit, static_argnames=("flips",), donate_argnames=("sums",))
def _add_batch(
    predict: Partial,
    sums: Float[Array, "c d y x"],
    slab: Float[Array, "d y x"],
    starts_yx: Int[Array, "b 2"],
    counted: Float[Array, "b"],
    weight_z: Float[Array, "d"],
    weight_yx: Float[Array, "h w"],
    *,
    flips: Flips,
) -> tuple[Float[Array, "c d y x"], Float[Array, ""]]:
    """Adds the weighted heatmaps of a batch of windows to the sums, in place.

    The second value serves to wait for the batch: the sums themselves are gone once the next batch is dispatched.
    """
    patch = (weight_z.shape[0], *weight_yx.shape)
    windows = jax.vmap(lambda start: lax.dynamic_slice(slab, (0, start[0], start[1]), patch))(starts_yx)
    heatmaps = _mean_over_flips(predict, windows, flips)
    expected = (len(starts_yx), sums.shape[0], *patch)
    if heatmaps.shape != expected:
        raise InputError(
            f"windows of shape {windows.shape} became heatmaps of shape {heatmaps.shape}; expected {expected}: "
            "convert the model again"
        )
    weight = weight_z[:, None, None] * weight_yx

    def add(i: Int[Array, ""], sums: Float[Array, "c d y x"]) -> Float[Array, "c d y x"]:
        corner = (0, 0, starts_yx[i, 0], starts_yx[i, 1])
        there = lax.dynamic_slice(sums, corner, heatmaps.shape[1:])
        return lax.dynamic_update_slice(sums, there + heatmaps[i] * (weight * counted[i]), corner)

    return lax.fori_loop(0, len(starts_yx), add, sums), counted.sum()


def _mean_over_flips(predict: Partial, windows: Float[Array, "b d h w"], flips: Flips) -> Float[Array, "b c d h w"]:
    passes = []
    for axes in flips:
        heatmaps = predict(jnp.flip(windows, [1 + a for a in axes]) if axes else windows)
        passes.append(jnp.flip(heatmaps, [2 + a for a in axes]) if axes else heatmaps)
    return passes[0] if len(passes) == 1 else sum(passes[1:], start=passes[0]) / len(passes)


@jax.jit
def _finished(
    sums: Float[Array, "c d y x"],
    weight_z: Float[Array, "s"],
    weight_yx: Float[Array, "h w"],
    corner_yx: Int[Array, "2"],
) -> Float[Array, "c s h w"]:
    """The first slices without their padding, divided by their weights."""
    size = (sums.shape[0], len(weight_z), *weight_yx.shape)
    inside = lax.dynamic_slice(sums, (0, 0, corner_yx[0], corner_yx[1]), size)
    return inside / (weight_z[:, None, None] * weight_yx)


@functools.partial(jax.jit, static_argnames=("height",), donate_argnames=("sums",))
def _move_up(sums: Float[Array, "c d y x"], *, height: int) -> Float[Array, "c d y x"]:
    """Drops the first slices, in place; zeros follow the last ones."""
    kept = sums.shape[1] - height

    def move(z: Int[Array, ""], sums: Float[Array, "c d y x"]) -> Float[Array, "c d y x"]:
        # Slice by slice, since a copy of all of them would be the largest array of an inference.
        return sums.at[:, z].set(sums[:, z + height])

    return lax.fori_loop(0, kept, move, sums).at[:, kept:].set(0)


@functools.partial(jax.jit, static_argnames=("height",))
def _mean(
    heatmaps: tuple[Float[Array, "c _ y x"], ...], offsets: Int[Array, "n"], *, height: int
) -> Float[Array, "c z y x"]:
    parts = [lax.dynamic_slice_in_dim(h, offsets[i], height, axis=1) for i, h in enumerate(heatmaps)]
    return sum(parts[1:], start=parts[0]) / len(parts)
