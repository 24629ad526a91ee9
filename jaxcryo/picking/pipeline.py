"""From a tomogram to picks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from jaxcryo.config import InferenceConfig
from jaxcryo.domain import ParticleType, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picking.peaks import OnSlab, Peaks, collect_peaks, find_peaks, merge_close
from jaxcryo.picking.reader import SlabReader
from jaxcryo.picking.stitch import ChooseWindows, OnWindows, Slab, heatmap_slabs
from jaxcryo.picking.windows import WindowPlan, windows_that_reach
from jaxcryo.project.mask import inside, inside_on_grid
from jaxcryo.runtime.opened import OpenModel


def find_picks(
    volume: Volume,
    models: Sequence[OpenModel],
    types: Sequence[ParticleType],
    *,
    config: InferenceConfig,
    floor: float | None = None,
    on_windows: OnWindows | None = None,
    on_slab: OnSlab | None = None,
    mask: Volume | None = None,
    note: Callable[[str], object] = lambda sentence: None,
) -> Picks:
    """The particles of a tomogram, by type and then from the highest score down.

    A score is the heatmap's value, averaged over models. Picks are above the threshold of their type, or with `floor`
    above that value whatever the type: leaving out those at or below a threshold afterwards gives the same picks as
    that threshold would have. Windows and batches are the models' own.

    With a `mask`, which covers the volume's box in voxels of any size, there are picks only where it is above 0.
    Windows that cannot affect the picks, outside the mask or without data, are not computed; `note` is told how many.

    Raises:
        InputError: the models' classes differ, or from the number of types; the volume cannot be read or is smaller
            than a window.
        ModelError: a model fails.
    """
    peaks = peaks_of_slices(
        volume, models, types, (0, volume.grid.shape_zyx[0]), config=config, floor=floor, on_windows=on_windows,
        on_slab=on_slab, mask=mask, note=note,
    )  # fmt: skip
    return picks_of_peaks(peaks, volume.name, volume.grid, types, config, mask=mask)


def peaks_of_slices(
    volume: Volume,
    models: Sequence[OpenModel],
    types: Sequence[ParticleType],
    slices: tuple[int, int],
    *,
    config: InferenceConfig,
    floor: float | None = None,
    on_windows: OnWindows | None = None,
    on_slab: OnSlab | None = None,
    mask: Volume | None = None,
    note: Callable[[str], object] = lambda sentence: None,
) -> Peaks:
    """The peaks of `find_picks` in a range of slices, one of `z_ranges`; `on_slab` gets these slices alone.

    They equal those of the whole volume: windows that reach into the range, and the voxels beside it that its peaks are
    compared with, are computed too. Raises as `find_picks` does.
    """
    for model in models:
        if model.classes != len(types):
            raise InputError(
                f"{model.name} gives heatmaps of {model.classes} classes for {len(types)} particle types "
                f"({', '.join(t.name for t in types)}); expected as many: use the types it was trained with"
            )
    thresholds = [t.threshold if floor is None else floor for t in types]
    start, stop = slices
    if start == stop:
        return collect_peaks([])
    depth, margin = volume.grid.shape_zyx[0], config.nms_voxel // 2

    def say(sentence: str) -> None:
        note(sentence if slices == (0, depth) else f"{sentence} (slices {start} to {stop - 1})")

    def show(slab: Slab) -> None:
        inner = slab.within(start, stop)
        if on_slab is not None and inner is not None:
            on_slab(inner)

    choose = None if mask is None else _windows_of_mask(mask, volume, margin=margin, note=say)
    seen = max(start - margin, 0), min(stop + margin, depth)
    slabs = heatmap_slabs(volume, models, slices=seen, on_windows=on_windows, choose=choose, note=say)
    peaks = collect_peaks(find_peaks(slabs, thresholds, nms_voxel=config.nms_voxel, first=start, on_slab=show))
    return peaks.select(peaks.zyx_voxel[:, 0] < stop)


def picks_of_peaks(
    peaks: Peaks,
    run: str,
    grid: VoxelGrid,
    types: Sequence[ParticleType],
    config: InferenceConfig,
    *,
    mask: Volume | None = None,
) -> Picks:
    """Peaks as positions, refined and merged as the config says, by type and then from the highest score down."""
    offset = peaks.offset_zyx_voxel if config.refine else 0
    picks = Picks(
        run=run,
        types=tuple(types),
        xyz_angstrom=grid.to_angstrom(peaks.zyx_voxel + offset),
        type_index=peaks.type_index,
        score=peaks.score,
    )
    if mask is not None:  # before close ones are merged: what is outside may be incomplete, and must remove nothing
        picks = inside(picks, _in_frame_of(grid, mask))
    assert picks.score is not None
    radii_angstrom = [config.merge_radius * t.radius_angstrom for t in types]
    keep = merge_close(picks.xyz_angstrom, picks.type_index, picks.score, radii_angstrom)
    order = np.lexsort((-picks.score, picks.type_index))
    return picks.select(order[keep[order]])


def _in_frame_of(grid: VoxelGrid, mask: Volume) -> Volume:
    return dataclasses.replace(mask, grid=mask.grid.in_frame_of(grid))


def _windows_of_mask(mask: Volume, volume: Volume, *, margin: int, note: Callable[[str], object]) -> ChooseWindows:
    """Leaves out windows that hold no voxel of the mask and none that a peak there is compared with."""
    seen = inside_on_grid(_in_frame_of(volume.grid, mask), volume.grid)

    def choose(plan: WindowPlan) -> Bool[NDArray[np.bool_], "layers n"]:
        read = SlabReader(seen).stream()
        chosen = windows_that_reach(plan, lambda start, stop: read(start, stop) > 0, margin=margin)
        note(f"{volume.name}: {chosen.size - int(chosen.sum())} of {chosen.size} windows lie outside the mask")
        return chosen

    return choose
