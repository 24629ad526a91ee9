"""The official score of the challenge, its quirks included; the only copy.

A candidate matches a reference point within half the particle's radius. True positives are the distinct reference
points so matched, false positives the candidates less these (a candidate between two reference points makes two true
positives and minus one false positive), summed over the runs of the reference; F-beta with beta 4 per type; the mean
weighted by the types' weights, types that the reference lacks counting 0 with their weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial import KDTree

from jaxcryo.domain import ParticleType, Picks

BETA = 4.0
RADIUS_SHARE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Matches of one particle type."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            true_positive=self.true_positive + other.true_positive,
            false_positive=self.false_positive + other.false_positive,
            false_negative=self.false_negative + other.false_negative,
        )

    @property
    def truth(self) -> int:
        """Reference points."""
        return self.true_positive + self.false_negative

    @property
    def found(self) -> int:
        """Candidates."""
        return self.true_positive + self.false_positive

    @property
    def precision(self) -> float:
        """Share of the candidates that are right."""
        return self.true_positive / self.found if self.found > 0 else 0.0

    @property
    def recall(self) -> float:
        """Share of the reference points that were found."""
        return self.true_positive / self.truth if self.truth > 0 else 0.0

    @property
    def f_beta(self) -> float:
        """Recall counts beta times as much as precision."""
        p, r = self.precision, self.recall
        return (1 + BETA**2) * p * r / (BETA**2 * p + r) if p + r > 0 else 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """Counts of each type, in the types' order, and the weighted mean of their F4."""

    types: tuple[ParticleType, ...]
    counts: tuple[Counts, ...]

    @property
    def weighted_f4(self) -> float:
        """The score of the challenge, in which a type without reference points counts 0; 0 where every weight is 0."""
        return self._mean(range(len(self.types)))

    @property
    def weighted_f4_of_known(self) -> float:
        """The same over the types that have reference points: what the others' picks are worth is not known."""
        return self._mean([i for i, c in enumerate(self.counts) if c.truth > 0])

    @property
    def unknown(self) -> tuple[ParticleType, ...]:
        """Types that count in the score of the challenge, and have no reference point."""
        return tuple(t for t, c in zip(self.types, self.counts, strict=True) if t.weight > 0 and c.truth == 0)

    def _mean(self, indices: Sequence[int]) -> float:
        total = sum(self.types[i].weight for i in indices)
        return sum(self.types[i].weight * self.counts[i].f_beta for i in indices) / total if total else 0.0


def count_matches(
    reference_xyz_angstrom: Float[NDArray[np.float64], "n 3"],
    candidate_xyz_angstrom: Float[NDArray[np.float64], "m 3"],
    radius_angstrom: float,
) -> Counts:
    """Matches within `radius_angstrom` (`compute_metrics` of the official scorer)."""
    n, m = len(reference_xyz_angstrom), len(candidate_xyz_angstrom)
    if n == 0 or m == 0:
        return Counts(false_positive=m, false_negative=n)
    near = KDTree(candidate_xyz_angstrom).query_ball_tree(KDTree(reference_xyz_angstrom), r=radius_angstrom)
    hit = len(set().union(*near))
    return Counts(true_positive=hit, false_positive=m - hit, false_negative=n - hit)


def score(truth: Mapping[str, Picks], found: Mapping[str, Picks], types: Sequence[ParticleType]) -> Score:
    """The score of `found` over the runs of `truth`; runs that only `found` has do not count."""
    totals = [Counts() for _ in types]
    for run, reference in truth.items():
        candidates = found.get(run)
        for i, kind in enumerate(types):
            xyz = np.zeros((0, 3)) if candidates is None else candidates.of_type(i)
            totals[i] += count_matches(reference.of_type(i), xyz, RADIUS_SHARE * kind.radius_angstrom)
    return Score(types=tuple(types), counts=tuple(totals))
