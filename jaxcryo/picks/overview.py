"""The result of a batch of tomograms: picks of each type in each, and tomograms that differ from the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jaxcryo.domain import ParticleType, Picks

TIMES = 10.0
"""A tomogram is named if it has this many times fewer or more picks than the median of the others."""
_LEAST_OTHERS = 3
_LEAST_PICKS = 10.0
"""Smaller numbers change this much by chance."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlier:
    """A tomogram with far fewer or more picks than the others."""

    run: str
    type: str | None
    """The type that was counted; None for all types together."""
    count: int
    median: float
    """The median of the other tomograms."""

    def __str__(self) -> str:
        of = "" if self.type is None else f" of {self.type}"
        cause = (
            "check whether it is empty, and its contrast and voxel size"
            if self.count < self.median
            else "check its contrast and voxel size, and whether much of it is very bright or dark"
        )
        return f"{self.run}: {self.count} picks{of}, while the median of the others is {self.median:g}; {cause}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overview:
    """Counts of a batch."""

    runs: tuple[str, ...]
    types: tuple[ParticleType, ...]
    counts: Int[NDArray[np.int64], "runs types"]
    expected_right: Float[NDArray[np.float64], "runs types"] | None
    """How many of them are right on average; None for models without a calibration."""

    @property
    def outliers(self) -> tuple[Outlier, ...]:
        """Tomograms with ten times fewer or more picks than the median of the others, which are at least three.

        One that stands out in the total is not named again for each type.
        """
        found = []
        total = self.counts.sum(axis=1)
        for row, run in enumerate(self.runs):
            whole = _far_off(total, row)
            if whole is not None:
                found.append(Outlier(run=run, type=None, count=int(total[row]), median=whole))
                continue
            for column, kind in enumerate(self.types):
                median = _far_off(self.counts[:, column], row)
                if median is not None:
                    found.append(Outlier(run=run, type=kind.name, count=int(self.counts[row, column]), median=median))
        return tuple(found)

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        names = [t.name for t in self.types]
        return {
            "thresholds": {t.name: t.threshold for t in self.types},
            "runs": {
                run: {
                    "picks": dict(zip(names, self.counts[row].tolist(), strict=True)),
                    "expected_right": None
                    if self.expected_right is None
                    else dict(zip(names, np.round(self.expected_right[row], 2).tolist(), strict=True)),
                }
                for row, run in enumerate(self.runs)
            },
            "outliers": [dataclasses.asdict(o) for o in self.outliers],
        }


def overview_of(found: Mapping[str, Picks], types: Sequence[ParticleType]) -> Overview:
    """Counts the picks of each tomogram."""
    counts = [np.bincount(p.type_index, minlength=len(types)) for p in found.values()]
    right = None
    if all(p.probability is not None for p in found.values()):
        right = [np.bincount(p.type_index, p.probability, len(types)) for p in found.values()]
    shape = (len(found), len(types))
    return Overview(
        runs=tuple(found),
        types=tuple(types),
        counts=np.array(counts, np.int64).reshape(shape),
        expected_right=None if right is None else np.array(right, np.float64).reshape(shape),
    )


def _far_off(counts: Int[NDArray[np.int64], " runs"], row: int) -> float | None:
    """The median of the others, if the count is far from it."""
    others = np.delete(counts, row)
    if len(others) < _LEAST_OTHERS:
        return None
    median = float(np.median(others))
    few = median >= _LEAST_PICKS and counts[row] * TIMES <= median
    many = counts[row] >= _LEAST_PICKS and counts[row] >= TIMES * max(median, 1.0)
    return median if few or many else None
