"""Scoring averaged weights on the held-out run, through the pipeline that `infer.py` runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.calibration import Calibration
from jaxcryo.config import TrainConfig
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.metric import RADIUS_SHARE, Score, count_matches, score
from jaxcryo.models import Network, Weights
from jaxcryo.picking.calibrate import calibrate
from jaxcryo.picking.peaks import OnSlab
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.stitch import OnWindows, Slab
from jaxcryo.report import shown_slices
from jaxcryo.runtime.opened import OpenModel

THRESHOLDS = np.round(np.linspace(0.05, 0.95, 19), 2)
_PLATEAU = 0.03


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """The scores of a set of weights on the held-out run."""

    types: tuple[ParticleType, ...]
    """Picks at the chosen thresholds."""
    picks: Picks
    """All picks above the lowest threshold of the sweep."""
    curves: Float[NDArray[np.float64], "c t"]
    """F4 of each type at each of `THRESHOLDS`."""
    best: Score
    """Scores at each type's single best threshold."""
    best_thresholds: tuple[float, ...]
    chosen: Score
    """Scores at the chosen thresholds: the middle of the plateau around the best."""
    heatmaps: dict[int, Float[NDArray[np.float32], "c y x"]]
    """Heatmaps of the slices that a picture shows."""


def flax_model(network: Network, params: Weights, stats: Weights, config: TrainConfig, *, name: str) -> OpenModel:
    """The network with the weights of a training, ready to pick with."""
    return OpenModel(
        name=name,
        patch_zyx=config.model.patch_zyx,
        stride_zyx=config.inference.stride_zyx,
        batch=config.inference.batch,
        classes=config.model.classes,
        intensity=config.intensity,
        padding=config.inference.padding,
        predict=jax.tree_util.Partial(network.apply, params, stats),
    )


def validate(
    model: OpenModel,
    volume: Volume,
    truth: Picks,
    types: Sequence[ParticleType],
    config: TrainConfig,
    *,
    on_windows: OnWindows | None = None,
    on_slab: OnSlab | None = None,
) -> Validation:
    """Picks of the whole volume, and the thresholds chosen from them."""
    shown = shown_slices(volume.grid.shape_zyx[0])
    heatmaps: dict[int, NDArray[np.float32]] = {}

    def keep(slab: Slab) -> None:
        for z in shown:
            if 0 <= z - slab.z_start < slab.heatmap.shape[1]:
                heatmaps[z] = np.asarray(slab.heatmap[:, z - slab.z_start])
        if on_slab is not None:
            on_slab(slab)

    picks = find_picks(
        volume,
        [model],
        types,
        config=config.inference,
        floor=float(THRESHOLDS[0]),
        on_windows=on_windows,
        on_slab=keep,
    )
    curves = np.array([threshold_curve(picks, truth, i) for i in range(len(types))])
    best = [float(THRESHOLDS[int(np.argmax(c))]) for c in curves]
    chosen = [middle_of_plateau(c) for c in curves]
    # A type that the held-out run lacks keeps its threshold.
    known = [bool(np.any(truth.type_index == i)) for i in range(len(types))]
    with_thresholds = tuple(
        dataclasses.replace(t, threshold=c if k else t.threshold) for t, c, k in zip(types, chosen, known, strict=True)
    )
    return Validation(
        types=with_thresholds,
        picks=picks,
        curves=curves,
        best=_score(picks, truth, types, best),
        best_thresholds=tuple(best),
        chosen=_score(picks, truth, types, [t.threshold for t in with_thresholds]),
        heatmaps=heatmaps,
    )


def calibrate_on(
    model: OpenModel,
    held_out: Sequence[tuple[Volume, Picks]],
    types: Sequence[ParticleType],
    config: TrainConfig,
    *,
    on_windows: OnWindows | None = None,
) -> tuple[tuple[ParticleType, ...], Calibration]:
    """Thresholds and calibration from several held-out tomograms and the particles in them.

    The tomograms should differ from the training's as much as those that will be picked: a calibration holds only for
    tomograms like them. A threshold is the middle of the plateau of the mean F4 over tomograms that have the type;
    types that none has keep theirs.
    """
    candidates = [
        find_picks(volume, [model], types, config=config.inference, floor=float(THRESHOLDS[0]), on_windows=on_windows)
        for volume, _ in held_out
    ]
    truths = [dataclasses.replace(truth, run=volume.name) for volume, truth in held_out]
    chosen = []
    for index, kind in enumerate(types):
        curves = [
            threshold_curve(picks, truth, index)
            for picks, truth in zip(candidates, truths, strict=True)
            if np.any(truth.type_index == index)
        ]
        threshold = middle_of_plateau(np.mean(curves, axis=0)) if curves else kind.threshold
        chosen.append(dataclasses.replace(kind, threshold=threshold))
    return tuple(chosen), calibrate(candidates, truths, types)


def threshold_curve(picks: Picks, truth: Picks, index: int) -> Float[NDArray[np.float64], " t"]:
    """F4 of one type at each of `THRESHOLDS`."""
    assert picks.score is not None
    mine = picks.type_index == index
    radius = RADIUS_SHARE * picks.types[index].radius_angstrom
    reference = truth.of_type(index)
    return np.array(
        [count_matches(reference, picks.xyz_angstrom[mine & (picks.score > t)], radius).f_beta for t in THRESHOLDS]
    )


def middle_of_plateau(curve: Float[NDArray[np.float64], " t"]) -> float:
    """The middle of the stretch around the best threshold whose F4 is within 0.03 of it.

    It transfers to other tomograms better than the best threshold itself, which is often at the end of the stretch.
    """
    good = curve >= curve.max() - _PLATEAU
    first = last = int(np.argmax(curve))
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(curve) and good[last + 1]:
        last += 1
    return float((THRESHOLDS[first] + THRESHOLDS[last]) / 2)


def _score(picks: Picks, truth: Picks, types: Sequence[ParticleType], thresholds: Sequence[float]) -> Score:
    return score({truth.run: truth}, {truth.run: picks.above(thresholds)}, types)
