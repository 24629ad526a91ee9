"""From a tomogram to picks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxcryo.config import InferenceConfig
from jaxcryo.domain import ParticleType, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.inference.engine import Engine
from jaxcryo.inference.peaks import Peaks, collect_peaks, find_peaks, merge_close
from jaxcryo.inference.stitch import OnWindows, Slab, heatmap_slabs

OnSlab = Callable[[Slab], None]
"""Called with each finished slab of heatmaps, from the first slice to the last, before peaks are looked for in it."""


def find_picks(
    volume: Volume,
    engines: Sequence[Engine],
    types: Sequence[ParticleType],
    *,
    config: InferenceConfig,
    floor: float | None = None,
    on_windows: OnWindows | None = None,
    on_slab: OnSlab | None = None,
) -> Picks:
    """The particles of a tomogram, by type and then from the highest score down.

    A score is the heatmap's value, averaged over engines. Picks are above the threshold of their type, or with `floor`
    above that value whatever the type: leaving out those at or below a threshold afterwards gives the same picks as
    that threshold would have. Windows and batches are the engines' own.

    Raises:
        InputError: the engines' classes differ, or from the number of types; the volume cannot be read or is smaller
            than a window.
        EngineError: an engine fails.
    """
    for engine in engines:
        if engine.classes != len(types):
            raise InputError(
                f"{engine.name} gives heatmaps of {engine.classes} classes for {len(types)} particle types "
                f"({', '.join(t.name for t in types)}); expected as many: use the types it was trained with"
            )
    thresholds = [t.threshold if floor is None else floor for t in types]
    slabs = heatmap_slabs(volume, engines, on_windows=on_windows)
    if on_slab is not None:
        slabs = _shown(slabs, on_slab)
    peaks = collect_peaks(find_peaks(slabs, thresholds, nms_voxel=config.nms_voxel))
    return picks_of_peaks(peaks, volume.name, volume.grid, types, config)


def picks_of_peaks(
    peaks: Peaks, run: str, grid: VoxelGrid, types: Sequence[ParticleType], config: InferenceConfig
) -> Picks:
    """Peaks as positions, refined and merged as the config says, by type and then from the highest score down."""
    offset = peaks.offset_zyx_voxel if config.refine else 0
    xyz_angstrom = grid.to_angstrom(peaks.zyx_voxel + offset)
    radii_angstrom = [config.merge_radius * t.radius_angstrom for t in types]
    keep = merge_close(xyz_angstrom, peaks.type_index, peaks.score, radii_angstrom)
    picks = Picks(
        run=run, types=tuple(types), xyz_angstrom=xyz_angstrom, type_index=peaks.type_index, score=peaks.score
    )
    order = np.lexsort((-peaks.score, peaks.type_index))
    return picks.select(order[keep[order]])


def _shown(slabs: Iterator[Slab], on_slab: OnSlab) -> Iterator[Slab]:
    for slab in slabs:
        on_slab(slab)
        yield slab
        del slab  # before the next one is made
