"""Thresholds for the given tomograms, chosen for an aim and without ground truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.calibration import Calibration, TypeCalibration
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.picking.aim import Aim
from jaxcryo.picking.level import score_level
from jaxcryo.picking.places import one_type_per_place

_BETAS = {"recall": 4.0, "balanced": 1.0}
_LEAST_CHANCES = {"recall": 0.0, "balanced": 0.1, "precision": 0.1}
"""Least chance of a pick beside one of another type at the same position; with less it is dropped. For recall all are
kept: losing a rare type to its rival costs more than the false picks."""
PRECISION = 0.95
_FARTHEST_SPREADS = 2.0
_LEAST_SPREAD = 0.25
"""Of the logarithm of a level: where held-out tomograms happened to agree, others may differ as much."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypeDecision:
    """The threshold of one type, and where it comes from."""

    threshold: float
    level: float | None
    """The level of the given tomograms, or the calibration's if they have too few scores; None without calibration."""
    adapted: bool
    """Whether the level is that of the given tomograms."""
    best_chance: float | None = None
    """Of the most certain candidate, where even it is less certain than the aim asks, so that nothing is picked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """The thresholds of a batch of tomograms, and the chances of its candidates."""

    types: tuple[ParticleType, ...]
    """With the thresholds in force."""
    decided: tuple[TypeDecision, ...]
    calibration: Calibration | None
    aim: Aim
    tomograms: int
    one_type_per_place: bool = True
    """Whether improbable picks are dropped where picks of different types are at one position."""

    def with_probabilities(self, candidates: Picks) -> Picks:
        """The same with the chance of each being right; without a calibration they have none."""
        if self.calibration is None or any(c is None for c in self.calibration.types) or candidates.score is None:
            return dataclasses.replace(candidates, types=self.types, probability=None)
        chance = np.zeros(len(candidates))
        for index, (own, known) in enumerate(zip(self.decided, self.calibration.types, strict=True)):
            mine = candidates.type_index == index
            assert known is not None and own.level is not None
            chance[mine] = known.probability(candidates.score[mine], own.level)
        return dataclasses.replace(candidates, types=self.types, probability=chance)

    def select(self, candidates: Picks) -> Picks:
        """The candidates above the thresholds, with their chances."""
        picks = self.with_probabilities(candidates.above([t.threshold for t in self.types]))
        if not self.one_type_per_place or self.calibration is None or picks.score is None:
            return picks
        level = np.array([np.nan if d.level is None else d.level for d in self.decided])
        return one_type_per_place(
            picks,
            picks.score / level[picks.type_index],
            self.calibration.rivals,
            least_chance=_LEAST_CHANCES[self.aim],
        )

    def expected_right(self, picks: Sequence[Picks]) -> tuple[float, ...] | None:
        """How many of these picks are right on average, by type; None without a calibration."""
        if any(p.probability is None for p in picks):
            return None
        return tuple(
            float(sum(p.probability[p.type_index == i].sum() for p in picks if p.probability is not None))
            for i in range(len(self.types))
        )

    def sentence(self) -> str:
        """The decision in words."""
        return self._thresholds() + self._out_of_reach()

    def _out_of_reach(self) -> str:
        pairs = zip(self.types, self.decided, strict=True)
        listed = ", ".join(f"{t.name} {d.best_chance:.0%}" for t, d in pairs if d.best_chance is not None)
        if not listed:
            return ""
        return (
            f"; none is picked of the types whose most certain candidate is less than {PRECISION:.0%} certain to be "
            f"right: {listed} (the aim balanced takes less certain ones)"
        )

    def _thresholds(self) -> str:
        listed = ", ".join(
            f"{t.name} {t.threshold:.2f}" + ("" if d.adapted or self.calibration is None else "*")
            for t, d in zip(self.types, self.decided, strict=True)
        )
        if self.calibration is None:
            return f"thresholds of the models, which have no calibration: {listed}"
        source = f"thresholds for {self.aim} from {self.tomograms} tomogram{'' if self.tomograms == 1 else 's'}"
        carried = [t.name for t, d in zip(self.types, self.decided, strict=True) if not d.adapted]
        if not carried:
            return f"{source}: {listed}"
        if len(carried) == len(self.types):
            return f"thresholds of the models, since there are too few candidates to choose others: {listed}"
        return f"{source}: {listed} (* the models' own: too few candidates to choose one)"


def decide(
    candidates: Sequence[Picks],
    types: Sequence[ParticleType],
    calibration: Calibration | None,
    *,
    aim: Aim = "recall",
    given: Mapping[str, float] | None = None,
    one_type_per_place: bool = True,
) -> Decision:
    """Thresholds over all candidates of a batch of tomograms.

    With a calibration the level of each type's scores is measured in the batch, within what held-out tomograms make
    likely, and candidates get their chance of being right; the threshold is where the aim is best served on average
    over these chances. A type with too few candidates, or without a calibration, keeps the models' own. The order of
    the tomograms does not matter. Thresholds that are given are kept.
    """
    given = {} if given is None else given
    decided = []
    for index, kind in enumerate(types):
        known = None if calibration is None else calibration.types[index]
        score = np.concatenate(
            [np.zeros(0), *(p.score[p.type_index == index] for p in candidates if p.score is not None)]
        )
        own = _decide_type(np.sort(score)[::-1], len(candidates), kind, known, aim)
        if kind.name in given:
            own = dataclasses.replace(own, threshold=given[kind.name], best_chance=None)
        decided.append(own)
    return Decision(
        types=tuple(dataclasses.replace(t, threshold=d.threshold) for t, d in zip(types, decided, strict=True)),
        decided=tuple(decided),
        calibration=calibration,
        aim=aim,
        tomograms=len(candidates),
        one_type_per_place=one_type_per_place,
    )


def _decide_type(
    score: Float[NDArray[np.float64], " n"],
    tomograms: int,
    kind: ParticleType,
    known: TypeCalibration | None,
    aim: Aim,
) -> TypeDecision:
    if known is None:
        return TypeDecision(threshold=kind.threshold, level=None, adapted=False)
    measured = score_level(score, tomograms)
    if measured is None:
        return TypeDecision(threshold=kind.threshold, level=known.level, adapted=False)
    reach = _FARTHEST_SPREADS * max(known.level_spread, _LEAST_SPREAD)
    level = known.level * math.exp(min(max(math.log(measured / known.level), -reach), reach))
    chance = known.probability(score, level)
    threshold = threshold_for(aim, score, chance)
    best = float(chance[0]) if aim == "precision" and threshold >= score[0] else None
    return TypeDecision(threshold=threshold, level=level, adapted=True, best_chance=best)


def threshold_for(aim: Aim, score: Float[NDArray[np.float64], " n"], chance: Float[NDArray[np.float64], " n"]) -> float:
    """The score that picks have to exceed; scores from the best down, with chances that do not rise.

    It lies halfway between the last pick and the first candidate that is none. Candidates of one score are picked or
    not together.
    """
    taken = np.arange(1, len(score) + 1, dtype=np.float64)
    right = np.cumsum(chance)
    if aim == "precision":
        good = np.flatnonzero(right / taken >= PRECISION)
        count = int(good[-1]) + 1 if len(good) else 0
    else:
        count = int(np.argmax(expected_f(right, taken, float(right[-1]), _BETAS[aim]))) + 1
    if count == 0:
        return float(score[0])
    last = score[count - 1]
    below = score[count:][score[count:] < last]
    # Nothing is known below the lowest candidate; a little under it keeps that one.
    return float((last + below[0]) / 2 if len(below) else last * (1 - 1e-6))


def expected_f(
    right: Float[NDArray[np.float64], " n"],
    taken: Float[NDArray[np.float64], " n"],
    particles: float,
    beta: float,
) -> Float[NDArray[np.float64], " n"]:
    """F-beta of the expected counts: how many picks are right, how many there are, how many particles."""
    square = beta**2
    return np.asarray((1 + square) * right / np.maximum(square * particles + taken, 1e-12))
