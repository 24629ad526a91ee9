"""Windows to calibrate on: of phantoms, chosen so that they show particles of every kind, empty ice and borders, or of
the tomograms that will be picked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jaxcryo.convert.comparison import Windows
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.phantom import PhantomConfig, make_phantom
from jaxcryo.picking.windows import WindowPlan, plan_windows
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.tomogram.normalization import normalization
from jaxcryo.tomogram.statistics import surveyed

_SEED = 72_000  # neither a training's nor that of phantoms to compare on
_PADDING = {"zeros": "constant", "reflect": "reflect"}
_LEAST_DATA = 0.5
"""The least share of a window that must hold data: emptier ones show little."""


def phantom_calibration(entry: ModelEntry, *, phantoms: int) -> Windows:
    """Of each phantom the window richest in each kind of particle, three of the emptiest, and three at its corners."""
    z, y, x = (2 * size + size // 4 for size in entry.patch_zyx)
    config = PhantomConfig(shape_zyx=(z, y, x), spacing_angstrom=entry.spacing_angstrom, types=entry.types)
    parts = []
    for number in range(phantoms):
        volume, picks = make_phantom(config, seed=_SEED + number)
        plan = _plan(volume, entry)
        starts = _starts(plan)
        counts = _counts(plan, starts, volume.grid.to_voxel(picks.xyz_angstrom), picks)
        richest = [int(counts[:, kind].argmax()) for kind in range(counts.shape[1])]
        emptiest = counts.sum(axis=1).argsort(kind="stable")[:3].tolist()
        corners = [0, len(starts) // 2, len(starts) - 1]
        chosen = list(dict.fromkeys([*richest, *emptiest, *corners]))
        parts.append(_windows(volume, entry, plan, starts[chosen]))
    return np.concatenate(parts)


def tomogram_calibration(entry: ModelEntry, volumes: Sequence[Volume], *, windows: int) -> Windows:
    """Windows spread evenly, from corner to corner, over tomograms that are preprocessed for the model.

    Raises:
        InputError: a tomogram cannot be read, or they hold hardly any data.
    """
    parts = []
    for volume in volumes:
        plan = _plan(volume, entry)
        starts = _starts(plan)
        each = min(-(-windows // len(volumes)), len(starts))
        spread = starts[np.linspace(0, len(starts) - 1, each).round().astype(int)]
        parts.append(_windows(volume, entry, plan, spread))
    found = np.concatenate(parts)
    found = found[(found != 0).mean(axis=(1, 2, 3)) >= _LEAST_DATA]
    if not len(found):
        names = ", ".join(v.name for v in volumes)
        raise InputError(f"{names}: no window holds data in half of its voxels; choose other tomograms to calibrate on")
    return found


def _plan(volume: Volume, entry: ModelEntry) -> WindowPlan:
    z, y, x = (max(size // 2, 1) for size in entry.patch_zyx)
    return plan_windows(volume.grid.shape_zyx, entry.patch_zyx, (z, y, x))


def _starts(plan: WindowPlan) -> Int[NDArray[np.int64], "n 3"]:
    """The corners of all windows, in voxels of the padded volume."""
    return np.array([(z, y, x) for z in plan.z.starts for y, x in plan.starts_yx().tolist()])


def _counts(
    plan: WindowPlan,
    starts: Int[NDArray[np.int64], "n 3"],
    centers_zyx_voxel: Float[NDArray[np.float64], "m 3"],
    picks: Picks,
) -> Int[NDArray[np.int64], "n k"]:
    """The number of particles of each kind with their center in a window."""
    corners = starts - [axis.pad_before for axis in (plan.z, plan.y, plan.x)]
    offsets = centers_zyx_voxel[None] - corners[:, None]
    held = ((offsets >= 0) & (offsets < plan.patch_zyx)).all(axis=-1)
    kinds = picks.type_index[:, None] == np.arange(len(picks.types))
    return held.astype(np.int64) @ kinds.astype(np.int64)


def _windows(
    volume: Volume, entry: ModelEntry, plan: WindowPlan, starts: Int[NDArray[np.int64], "n 3"]
) -> Float[NDArray[np.float32], "n d h w"]:
    """As the network sees them, padding included."""
    volume = surveyed(volume)
    normalize = normalization(volume, entry.intensity)
    windows = []
    for start in starts.tolist():
        spans, padding = [], []
        for first, axis in zip(start, (plan.z, plan.y, plan.x), strict=True):
            low = first - axis.pad_before
            inside = range(max(low, 0), min(low + axis.window, axis.size))
            spans.append(slice(inside.start, inside.stop))
            padding.append((inside.start - low, low + axis.window - inside.stop))
        box = normalize(volume.read_box(*spans))
        windows.append(np.pad(box, padding, mode=_PADDING[entry.inference.padding]))  # type: ignore[call-overload]
    return np.stack(windows)
