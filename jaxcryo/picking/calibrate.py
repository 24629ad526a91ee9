"""Calibrating a model's scores on tomograms whose particles are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import KDTree

from jaxcryo.calibration import Calibration, ReliabilityBin, RivalCalibration, TypeCalibration
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.metric import RADIUS_SHARE
from jaxcryo.picking.level import score_level
from jaxcryo.picking.places import fit_rivals

LEAST_CHANCE = 0.05
"""Candidates of less are left out of the reliability: nearly all candidates are noise, and all agree on that."""
_LEAST_RIGHT = 5
_LEAST_RATIO = 0.2
"""Of the level; lower candidates are noise in thousands, which would decide the fit."""
_PRIOR_WEIGHT = 4.0
"""How much the fit to all types together counts in that of one: as some right candidates."""
_BINS = 10
_FOLDS = 5

_Scores = tuple[Float[NDArray[np.float64], " n"], Bool[NDArray[np.bool_], " n"]]
"""Scores of one type in one tomogram relative to its level, and which are right."""
_Curve = Float[NDArray[np.float64], " 3"]
"""Intercept, slope and bend."""


def calibrate(candidates: Sequence[Picks], truths: Sequence[Picks], types: Sequence[ParticleType]) -> Calibration:
    """The calibration from these tomograms' candidates, which reach down to a floor far below the thresholds.

    Scores are first divided by each tomogram's own level, as in use. A type with fewer than five right candidates has
    no calibration.

    Raises:
        InputError: there are no tomograms, or candidates and truths are of different ones.
    """
    if not candidates or [p.run for p in candidates] != [t.run for t in truths]:
        raise InputError(
            f"candidates of {', '.join(p.run for p in candidates) or 'no tomogram'} with the particles of "
            f"{', '.join(t.run for t in truths) or 'none'}; calibrating needs both of the same tomograms"
        )
    levels, scores = _relative(candidates, truths, types)
    whole = range(len(candidates))
    fits = _fits(scores, whole)
    calibrated: list[TypeCalibration | None] = []
    for own_levels, own_scores, curve in zip(levels, scores, fits, strict=True):
        known = np.log([level for level in own_levels if level is not None])
        if curve is None or not len(known):
            calibrated.append(None)
            continue
        intercept, slope, bend = curve.tolist()
        calibrated.append(
            TypeCalibration(
                level=float(np.exp(known.mean())),
                level_spread=float(known.std()),
                intercept=intercept,
                slope=slope,
                bend=bend,
                right=sum(int(right.sum()) for _, right in own_scores),
            )
        )
    return Calibration(
        types=tuple(calibrated),
        tomograms=len(candidates),
        rivals=_rivals(candidates, truths, levels),
        reliability=_reliability(scores, whole),
    )


def _rivals(
    candidates: Sequence[Picks], truths: Sequence[Picks], levels: Sequence[Sequence[float | None]]
) -> tuple[RivalCalibration, ...]:
    ratios, rights = [], []
    for number, (picks, truth) in enumerate(zip(candidates, truths, strict=True)):
        assert picks.score is not None
        level = np.array([np.nan if own[number] is None else own[number] for own in levels], np.float64)
        right = np.zeros(len(picks), np.bool_)
        for index in range(len(levels)):
            right[picks.type_index == index] = are_right(picks, truth, index)
        ratios.append(picks.score / level[picks.type_index])
        rights.append(right)
    return fit_rivals(candidates, ratios, rights)


def are_right(candidates: Picks, truth: Picks, index: int) -> Bool[NDArray[np.bool_], " n"]:
    """Which candidates of a type are the best one at a particle; a second one at it is not."""
    assert candidates.score is not None
    mine = np.flatnonzero(candidates.type_index == index)
    particles = truth.of_type(index)
    right = np.zeros(len(mine), np.bool_)
    if not len(mine) or not len(particles):
        return right
    reach = RADIUS_SHARE * candidates.types[index].radius_angstrom
    distance, nearest = KDTree(particles).query(candidates.xyz_angstrom[mine])
    order = np.argsort(-candidates.score[mine], kind="stable")
    order = order[distance[order] <= reach]
    _, first = np.unique(nearest[order], return_index=True)
    right[order[first]] = True
    return right


def _relative(
    candidates: Sequence[Picks], truths: Sequence[Picks], types: Sequence[ParticleType]
) -> tuple[list[list[float | None]], list[list[_Scores]]]:
    """For each type and tomogram the level, and the scores over it; no scores where there is no level."""
    levels: list[list[float | None]] = []
    scores: list[list[_Scores]] = []
    for index in range(len(types)):
        own_levels, own_scores = [], []
        for picks, truth in zip(candidates, truths, strict=True):
            assert picks.score is not None
            mine = picks.score[picks.type_index == index]
            level, right = score_level(mine, 1), are_right(picks, truth, index)
            own_levels.append(level)
            ratio = mine / (np.inf if level is None else level)
            own_scores.append((ratio[ratio > _LEAST_RATIO], right[ratio > _LEAST_RATIO]))
        levels.append(own_levels)
        scores.append(own_scores)
    return levels, scores


def _fits(scores: Sequence[Sequence[_Scores]], tomograms: Sequence[int]) -> list[_Curve | None]:
    """The curve of each type over some of the tomograms; None for a type with too few right candidates."""
    joined = [
        (np.concatenate([own[t][0] for t in tomograms]), np.concatenate([own[t][1] for t in tomograms]))
        for own in scores
    ]
    enough = [int(right.sum()) >= _LEAST_RIGHT for _, right in joined]
    if not any(enough):
        return [None] * len(scores)
    prior = _curve(*(np.concatenate([own[i] for own in joined]) for i in (0, 1)), prior=None)
    return [_curve(*own, prior=prior) if known else None for own, known in zip(joined, enough, strict=True)]


def _curve(
    ratio: Float[NDArray[np.float64], " n"], right: Bool[NDArray[np.bool_], " n"], *, prior: _Curve | None
) -> _Curve:
    """The likeliest curve that does not fall, drawn a little to the prior."""
    log_ratio, excess = np.log(ratio), ratio - 1
    center = np.array([0.0, 2.0, 0.0]) if prior is None else prior
    weight = np.array([0.0, 0.1, 0.1]) if prior is None else np.array([0.2, 0.2, 0.2]) * _PRIOR_WEIGHT

    def loss(curve: _Curve) -> tuple[float, _Curve]:
        logit = curve[0] + curve[1] * log_ratio + curve[2] * excess
        value = np.logaddexp(0, logit).sum() - logit[right].sum()
        error = 1 / (1 + np.exp(-np.clip(logit, -700, 700))) - right
        # Summed, not multiplied as matrices: threads of the latter cost more than these sums on busy machines.
        slope = np.array([error.sum(), (error * log_ratio).sum(), (error * excess).sum()])
        off = curve - center
        return float(value + 0.5 * (weight * off**2).sum()), slope + weight * off

    start = np.array([-2.0, 2.0, 0.5]) if prior is None else prior
    bounds = [(-30.0, 30.0), (0.0, 30.0), (0.0, 30.0)]
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x, np.float64)


def _reliability(scores: Sequence[Sequence[_Scores]], tomograms: Sequence[int]) -> tuple[ReliabilityBin, ...]:
    """Chances against shares, each tomogram by curves of others: a fifth of the tomograms is left out at a time."""
    if len(tomograms) < 2:
        return ()
    chances, rights = [np.zeros(0)], [np.zeros(0, np.bool_)]
    parts = min(_FOLDS, len(tomograms))
    for part in range(parts):
        left_out = [t for t in tomograms if t % parts == part]
        fits = _fits(scores, [t for t in tomograms if t % parts != part])
        for own, curve in zip(scores, fits, strict=True):
            if curve is None:
                continue
            ratio, right = (np.concatenate([own[t][i] for t in left_out]) for i in (0, 1))
            intercept, slope, bend = curve.tolist()
            judge = TypeCalibration(level=1.0, level_spread=0.0, intercept=intercept, slope=slope, bend=bend, right=0)
            chances.append(judge.probability(ratio, 1.0))
            rights.append(right)
    return reliability_bins(np.concatenate(chances), np.concatenate(rights))


def reliability_bins(
    chance: Float[NDArray[np.float64], " n"], right: Bool[NDArray[np.bool_], " n"]
) -> tuple[ReliabilityBin, ...]:
    """Candidates from `LEAST_CHANCE` up in ten bins of equal width; empty bins are left out."""
    kept = chance >= LEAST_CHANCE
    chance, right = chance[kept], right[kept]
    place = np.minimum((chance * _BINS).astype(int), _BINS - 1)
    return tuple(
        ReliabilityBin(
            chance=float(chance[place == b].mean()),
            right=float(right[place == b].mean()),
            candidates=int((place == b).sum()),
        )
        for b in range(_BINS)
        if np.any(place == b)
    )
