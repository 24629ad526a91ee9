"""One particle per position: candidates of different types that are closer than two particles can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from jaxcryo.calibration import RivalCalibration
from jaxcryo.domain import Picks

CLOSEST_SHARE = 0.2
"""A share of the sum of two particles' radii; closer ones are at the same position."""
LOWEST_RATIO = 0.5
"""A share of the level; lower candidates do not count as rivals."""
_LEAST_PAIRS = 20
_RIDGE = 0.1


def close_pairs(picks: Picks) -> Int[NDArray[np.int64], "n 2"]:
    """Picks of different types at one place, each pair both ways round."""
    if len(picks) < 2:
        return np.zeros((0, 2), np.int64)
    reach = CLOSEST_SHARE * np.array([t.radius_angstrom for t in picks.types])[picks.type_index]
    pairs = cKDTree(picks.xyz_angstrom).query_pairs(2 * float(reach.max()), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    distance = np.linalg.norm(picks.xyz_angstrom[first] - picks.xyz_angstrom[second], axis=1)
    pairs = pairs[
        (picks.type_index[first] != picks.type_index[second]) & (distance < reach[first] + reach[second])
    ].astype(np.int64)
    return np.concatenate([pairs, pairs[:, ::-1]])


def fit_rivals(
    picks: Sequence[Picks],
    ratios: Sequence[Float[NDArray[np.float64], " n"]],
    rights: Sequence[Bool[NDArray[np.bool_], " n"]],
) -> tuple[RivalCalibration, ...]:
    """How rivals affect the chances of candidates, measured on tomograms with known particles.

    Ratios are of score and level, NaN where a type has no level. Pairs of types with fewer than 20 places are left out.
    """
    kinds, logs, truths = [np.zeros((0, 2), np.int64)], [np.zeros((0, 2))], [np.zeros(0, np.bool_)]
    for own, ratio, right in zip(picks, ratios, rights, strict=True):
        pairs = close_pairs(own)
        pairs = pairs[np.all(ratio[pairs] > LOWEST_RATIO, axis=1)]
        kinds.append(own.type_index[pairs].astype(np.int64))
        logs.append(np.log(ratio[pairs]))
        truths.append(right[pairs[:, 0]])
    kind, log, truth = np.concatenate(kinds), np.concatenate(logs), np.concatenate(truths)
    fitted = []
    for type_index, rival_index in np.unique(kind, axis=0).tolist():
        mine = np.all(kind == (type_index, rival_index), axis=1)
        if mine.sum() >= _LEAST_PAIRS:
            intercept, of_own, of_rival = _logistic(log[mine], truth[mine]).tolist()
            fitted.append(
                RivalCalibration(
                    type_index=type_index, rival_index=rival_index, intercept=intercept, own=of_own, rival=of_rival
                )
            )
    return tuple(fitted)


def one_type_per_place(
    picks: Picks, ratio: Float[NDArray[np.float64], " n"], rivals: Sequence[RivalCalibration], *, least_chance: float
) -> Picks:
    """Without the picks whose chance beside a rival is below `least_chance` and not above the rival's own.

    `ratio` is of score and level. A pair of types of which the calibration says nothing keeps both.
    """
    known = {(r.type_index, r.rival_index): r for r in rivals}
    pairs = close_pairs(picks)
    pairs = pairs[[k in known for k in map(tuple, picks.type_index[pairs].tolist())]] if len(pairs) else pairs
    pairs = pairs[np.all(ratio[pairs] > LOWEST_RATIO, axis=1)]
    chance = np.ones(len(picks))
    for own, rival in pairs.tolist():
        curve = known[int(picks.type_index[own]), int(picks.type_index[rival])]
        logit = curve.intercept + curve.own * np.log(ratio[own]) + curve.rival * np.log(ratio[rival])
        chance[own] = min(chance[own], 1 / (1 + np.exp(-np.clip(logit, -700, 700))))
    first, second = pairs[:, 0], pairs[:, 1]
    worse = (chance[first] < least_chance) & (chance[first] <= chance[second])
    keep = np.ones(len(picks), np.bool_)
    keep[first[worse]] = False
    return picks.select(np.flatnonzero(keep))


def _logistic(
    features: Float[NDArray[np.float64], "n 2"], right: Bool[NDArray[np.bool_], " n"]
) -> Float[NDArray[np.float64], " 3"]:
    def loss(curve: Float[NDArray[np.float64], " 3"]) -> tuple[float, Float[NDArray[np.float64], " 3"]]:
        logit = curve[0] + curve[1] * features[:, 0] + curve[2] * features[:, 1]
        error = 1 / (1 + np.exp(-np.clip(logit, -700, 700))) - right
        slope = np.array([error.sum(), *(error[:, None] * features).sum(axis=0)])
        slope[1:] += _RIDGE * curve[1:]
        value = np.logaddexp(0, logit).sum() - logit[right].sum() + 0.5 * _RIDGE * float((curve[1:] ** 2).sum())
        return float(value), slope

    bounds = [(-30.0, 30.0)] * 3
    return np.asarray(minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=bounds).x, np.float64)
