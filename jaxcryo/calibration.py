"""The calibration of a model's scores on held-out tomograms: how a score becomes the chance of being right."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypeCalibration:
    """The chance that a candidate of one type is right, by its score relative to the tomogram's level.

    The chance is σ(intercept + slope · ln r + bend · (r - 1)) with r = score / level, which never falls with the score.
    """

    level: float
    """The score that separates particles from noise, as a geometric mean over the held-out tomograms."""
    level_spread: float
    """Standard deviation of its logarithm between them."""
    intercept: float
    slope: float
    bend: float
    right: int
    """Candidates that were right in the fit."""

    def __post_init__(self) -> None:
        numbers = (self.level, self.level_spread, self.intercept, self.slope, self.bend)
        if not all(map(math.isfinite, numbers)) or self.level <= 0 or min(self.level_spread, self.slope, self.bend) < 0:
            raise InputError(f"a calibration holds {numbers}; expected numbers, a level above 0, no falling chance")

    def probability(self, score: Float[NDArray[np.float64], " n"], level: float) -> Float[NDArray[np.float64], " n"]:
        """The chance of being right, for scores of tomograms with this level; 0 for a score that is not positive."""
        ratio = np.maximum(np.asarray(score, np.float64), 0.0) / level
        with np.errstate(divide="ignore", over="ignore"):
            logit = self.intercept + self.slope * np.log(ratio) + self.bend * (ratio - 1)
            chance = np.asarray(1 / (1 + np.exp(-logit)))
        return np.where(ratio > 0, chance, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RivalCalibration:
    """The chance that a candidate is right beside one of another type at the same place.

    The chance is σ(intercept + own · ln r + rival · ln q), with the ratios of score and level of the candidate, r, and
    of its rival, q.
    """

    type_index: int
    rival_index: int
    intercept: float
    own: float
    rival: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.intercept, self.own, self.rival))):
            raise InputError(f"a calibration holds {(self.intercept, self.own, self.rival)}; expected numbers")
        if min(self.type_index, self.rival_index) < 0 or self.type_index == self.rival_index:
            raise InputError(f"a calibration is of the types {self.type_index} and {self.rival_index}; expected two")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Candidates of about the same calibrated chance, and how many of them were right."""

    chance: float
    """Their mean."""
    right: float
    """The share of them that was right."""
    candidates: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of one model, or of averaged models."""

    types: tuple[TypeCalibration | None, ...]
    """In channel order; None for a type of which the held-out tomograms had too few particles."""
    tomograms: int
    rivals: tuple[RivalCalibration, ...] = ()
    """For the pairs of types that were often enough at the same position."""
    reliability: tuple[ReliabilityBin, ...] = ()
    """Over all types, each tomogram with a fit to the others; empty if there was only one tomogram."""

    def __post_init__(self) -> None:
        if any(max(r.type_index, r.rival_index) >= len(self.types) for r in self.rivals):
            raise InputError(f"a calibration of {len(self.types)} types tells of others")

    @property
    def expected_error(self) -> float | None:
        """Expected calibration error: the mean difference between chance and share, over candidates."""
        total = sum(b.candidates for b in self.reliability)
        if not total:
            return None
        return sum(b.candidates * abs(b.chance - b.right) for b in self.reliability) / total


def mean_calibration(parts: Sequence[Calibration | None]) -> Calibration | None:
    """For averaged models, the mean of their calibrations; None if one has none.

    It has no reliability, since that of the average was not measured.
    """
    known = [p for p in parts if p is not None]
    if not known or len(known) < len(parts):
        return None
    if len(known) == 1:
        return known[0]
    return Calibration(
        types=tuple(_mean_type(own) for own in zip(*(p.types for p in known), strict=True)),
        tomograms=min(p.tomograms for p in known),
        rivals=_mean_rivals(known),
    )


def _mean_rivals(parts: Sequence[Calibration]) -> tuple[RivalCalibration, ...]:
    """Of the pairs that all know."""
    by_pair = [{(r.type_index, r.rival_index): r for r in p.rivals} for p in parts]
    return tuple(
        RivalCalibration(
            type_index=pair[0],
            rival_index=pair[1],
            intercept=float(np.mean([own[pair].intercept for own in by_pair])),
            own=float(np.mean([own[pair].own for own in by_pair])),
            rival=float(np.mean([own[pair].rival for own in by_pair])),
        )
        for pair in sorted(by_pair[0])
        if all(pair in own for own in by_pair)
    )


def _mean_type(parts: Sequence[TypeCalibration | None]) -> TypeCalibration | None:
    known = [p for p in parts if p is not None]
    if len(known) < len(parts):
        return None

    def mean(name: str) -> float:
        return float(np.mean([getattr(p, name) for p in known]))

    return TypeCalibration(
        level=float(np.exp(np.mean([np.log(p.level) for p in known]))),
        level_spread=mean("level_spread"),
        intercept=mean("intercept"),
        slope=mean("slope"),
        bend=mean("bend"),
        right=min(p.right for p in known),
    )
