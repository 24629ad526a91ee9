"""Statistics of a tomogram's voxels: found in one pass over its data, in bounded memory, always with the same result.

Filling (`filling.py`) is found in the same pass and left out of all figures.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.tomogram.filling import Emptied, grown, in_runs

Note = Callable[[str], object]

_SLICES = 16
"""Slices that are read at a time, rounded to whole chunks."""
_SAMPLE = 2**22
"""Number of voxels that quantiles are computed from: their error is below a thousandth of the standard deviation."""
_LEAST_SHARE = 1e-3
"""The least share of a volume that filling makes up; smaller runs of equal voxels are kept as data."""
_NORMAL_QUARTILES = 1.3489795
"""The distance between the quartiles of a normal distribution with standard deviation 1."""
_BLOCK_ANGSTROM = 120.0
"""Skewness is that of means over blocks as large as a particle: smaller details are mostly symmetric noise."""
_FARTHEST_BLOCK = 4.0
"""Deviations at which block means are clipped: a few gold beads, there or erased, say nothing of protein's contrast."""
_LEAST_SKEWNESS = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Figures of the voxels that hold data."""

    voxels: int
    """All voxels, also those without data."""
    count: int
    """Voxels with data."""
    mean: float
    std: float
    median: float
    deviation: float
    """From the quartiles, scaled to equal `std` for a normal distribution: bright or dark objects hardly change it."""
    skewness: float
    """Skewness of the means over blocks as large as a particle: below 0 if dark objects stand out."""

    @property
    def empty(self) -> float:
        """The share of voxels that hold no data."""
        return 1 - self.count / self.voxels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """The result of one pass over a volume."""

    statistics: Statistics
    filling: tuple[tuple[int, tuple[float, ...]], ...]
    """The slices that hold filling, each with the values that it has there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surveyed(Volume):
    """A volume with its statistics; voxels without data are NaN and take no part in them."""

    survey: Survey

    @property
    def statistics(self) -> Statistics:
        """The figures of the voxels that hold data."""
        return self.survey.statistics


def surveyed(volume: Volume, *, note: Note = lambda sentence: None) -> Surveyed:
    """The volume with its statistics and its filling as NaN, which `note` is told; unchanged if that was done before.

    Raises:
        InputError: it cannot be read, holds no data, or all voxels are equal.
    """
    if isinstance(volume, Surveyed):
        return volume
    surveying = _Surveying(volume)
    surveying.run()
    filling = surveying.filling()
    statistics = surveying.statistics(filling)
    if statistics.count < statistics.voxels:
        values = sorted({float(v) for own in filling.values() for v in own})
        several = f"{len(values)} values from {values[0]:g} to {values[-1]:g}" if len(values) > 3 else ""
        named = [several] if several else [f"{v:g}" for v in values]
        named += ["NaN"] if surveying.missing else []
        share = f"{100 * statistics.empty:.0f}" if statistics.empty >= 0.01 else f"{100 * statistics.empty:.2g}"
        note(
            f"{volume.name}: {share} % of it is empty ({', '.join(named)}): left out of the statistics, and "
            "never picked in"
        )
    values_of_slices = tuple((z, tuple(own.tolist())) for z, own in filling.items())
    return with_survey(volume, Survey(statistics=statistics, filling=values_of_slices))


def with_survey(volume: Volume, survey: Survey) -> Surveyed:
    """The volume as `surveyed` returned it before."""
    filling = {z: np.array(values, np.float32) for z, values in survey.filling}
    return Surveyed(
        name=volume.name,
        voxels=Emptied(array=volume.voxels, values=filling) if filling else volume.voxels,
        grid=volume.grid,
        has_gaps=survey.statistics.count < survey.statistics.voxels,
        survey=survey,
    )


def are_opposite(skewness: float, other: float) -> bool:
    """Whether two tomograms clearly differ in whether dark or bright objects stand out."""
    return min(abs(skewness), abs(other)) > _LEAST_SKEWNESS and skewness * other < 0


def of_opposite_contrast(skewness: Mapping[str, float]) -> list[str]:
    """The tomograms whose contrast is opposite to that of most."""
    usual = float(np.median(list(skewness.values())))
    return [name for name, own in skewness.items() if are_opposite(own, usual)]


def quantiles(values: Float[NDArray[np.float32], " n"], shares: Sequence[float]) -> list[float]:
    """Quantiles in which equal values count as spread evenly between their neighbors, so that they are smooth even if
    intensities have few steps."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return [float(distinct[0])] * len(shares)
    distinct = distinct.astype(np.float64)
    middles = (distinct[1:] + distinct[:-1]) / 2
    edges = np.concatenate(
        [[1.5 * distinct[0] - 0.5 * distinct[1]], middles, [1.5 * distinct[-1] - 0.5 * distinct[-2]]]
    )
    below = np.concatenate([[0], counts.cumsum()]) / counts.sum()
    return [float(v) for v in np.interp(shares, below, edges)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Flat:
    """The flat parts of a slice: runs of equal voxels, and the equal ones that adjoin them."""

    counts: Mapping[float, int]
    """Voxels of each value."""
    in_runs: Mapping[float, int]
    """Those of them that are in runs."""
    sample: Float[NDArray[np.float32], " n"]


class _Surveying:
    """One pass. Runs of equal voxels are kept apart until it is known which of them are filling."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.moments = _Moments()
        self.missing = 0
        depth, height, width = volume.grid.shape_zyx
        self.flat: dict[int, _Flat] = {}
        self.stride = max(-(-depth * height * width // _SAMPLE), 1)
        while math.gcd(self.stride, width) > 1:
            self.stride += 1
        self.sample: list[Float[NDArray[np.float32], " n"]] = []
        self.block = max(round(_BLOCK_ANGSTROM / volume.grid.spacing_angstrom), 1)
        self.block_zyx = [min(self.block, n) for n in volume.grid.shape_zyx]
        blocks = [n // b for n, b in zip(volume.grid.shape_zyx, self.block_zyx, strict=True)]
        self.sums, self.counts = np.zeros(blocks), np.zeros(blocks, np.int64)

    def run(self) -> None:
        chunks = getattr(self.volume.voxels, "chunks", None)
        chunk = int(chunks[0]) if chunks is not None and len(chunks) == 3 else 1
        step, depth = math.ceil(_SLICES / chunk) * chunk, self.volume.grid.shape_zyx[0]
        for start in range(0, depth, step):
            self._add(start, self.volume.read(start, min(start + step, depth)))

    def _add(self, start: int, voxels: Float[NDArray[np.float32], "z y x"]) -> None:
        runs = in_runs(voxels)
        flat = runs.copy()
        places = np.flatnonzero(runs.any(axis=(1, 2)))
        flat[places] = grown(runs[places], voxels[places])
        missing = np.isnan(voxels)
        self.missing += int(np.count_nonzero(missing))
        data = ~(flat | missing)
        whole = bool(data.all())
        self.moments.add(voxels if whole else voxels[data])
        for place, one in enumerate(voxels):
            chosen = slice((start + place) * 7919 % self.stride, None, self.stride)
            sampled = one.ravel()[chosen]
            if whole:
                self.sample.append(sampled)
                continue
            self.sample.append(sampled[data[place].ravel()[chosen]])
            if flat[place].any():
                values, counts = np.unique(one[flat[place]], return_counts=True)
                core, core_counts = np.unique(one[runs[place]], return_counts=True)
                in_core = dict(zip(core.tolist(), core_counts.tolist(), strict=True))
                self.flat[start + place] = _Flat(
                    counts=dict(zip(values.tolist(), counts.tolist(), strict=True)),
                    in_runs=in_core,
                    sample=sampled[flat[place].ravel()[chosen]],
                )
        self._add_blocks(start, voxels, None if whole else data)

    def _add_blocks(
        self, start: int, voxels: Float[NDArray[np.float32], "z y x"], data: Bool[NDArray[np.bool_], "z y x"] | None
    ) -> None:
        depth, height, width = self.sums.shape
        _, y, x = self.block_zyx

        def by_block(values: NDArray[np.float32] | NDArray[np.bool_]) -> NDArray[np.float64]:
            cut = values[:, : height * y, : width * x]
            rows = np.add.reduceat(cut, np.arange(0, width * x, x), axis=2, dtype=np.float64)
            return np.add.reduceat(rows, np.arange(0, height * y, y), axis=1)

        layers = (start + np.arange(len(voxels))) // self.block_zyx[0]
        used = layers < depth
        if data is None:
            np.add.at(self.counts, layers[used], y * x)
            np.add.at(self.sums, layers[used], by_block(voxels[used]))
        else:
            np.add.at(self.counts, layers[used], by_block(data[used]).astype(np.int64))
            np.add.at(self.sums, layers[used], by_block(np.where(data[used], voxels[used], np.float32(0))))

    def filling(self) -> dict[int, Float[NDArray[np.float32], " n"]]:
        """The values of each slice that are more often in runs than elsewhere, over the slices that have them."""
        inside: defaultdict[float, int] = defaultdict(int)
        elsewhere: defaultdict[float, int] = defaultdict(int)
        for z, flat in self.flat.items():
            wanted = np.array(sorted(flat.in_runs), np.float32)
            ordered = np.sort(self.sample[z])
            found = np.searchsorted(ordered, wanted, "right") - np.searchsorted(ordered, wanted, "left")
            for value, count in zip(wanted.tolist(), found.tolist(), strict=True):
                inside[value] += flat.in_runs[value]
                elsewhere[value] += count * self.stride + flat.counts[value] - flat.in_runs[value]
        filling = {value for value, count in inside.items() if count >= elsewhere[value]}
        if sum(inside[value] for value in filling) < _LEAST_SHARE * math.prod(self.volume.grid.shape_zyx):
            return {}
        chosen = {z: np.array(sorted(filling & flat.in_runs.keys()), np.float32) for z, flat in self.flat.items()}
        return {z: values for z, values in chosen.items() if len(values)}

    def statistics(self, filling: Mapping[int, Float[NDArray[np.float32], " n"]]) -> Statistics:
        """Raises InputError if no data is left, or all of it is equal."""
        nothing = np.zeros(0, np.float32)
        kept = [*self.sample]
        for z, flat in self.flat.items():
            for value, count in flat.counts.items():
                if value not in filling.get(z, nothing):
                    self.moments.merge(count, value, 0.0)
            kept.append(flat.sample[~np.isin(flat.sample, filling.get(z, nothing))])
        total = math.prod(self.volume.grid.shape_zyx)
        moments = self.moments
        if not (moments.count and moments.std > 0):
            found = {v for flat in self.flat.values() for v in flat.counts} | (
                {moments.mean} if moments.count else set()
            )
            held = f"every voxel is {found.pop():g}" if len(found) == 1 and not self.missing else "it holds no data"
            raise InputError(f"{self.volume.name}: {held}; expected a tomogram: reconstruct or copy it again")
        low, median, high = quantiles(np.concatenate(kept), (0.25, 0.5, 0.75))
        blocks = (self.sums / np.maximum(self.counts, 1))[2 * self.counts >= math.prod(self.block_zyx)]
        skewness = 0.0
        if len(blocks):
            quarter, middle, three = np.quantile(blocks, (0.25, 0.5, 0.75))
            reach = _FARTHEST_BLOCK * (three - quarter) / _NORMAL_QUARTILES or np.inf
            blocks = np.clip(blocks, middle - reach, middle + reach)
            centered = (blocks - blocks.mean()) / (blocks.std() or 1.0)
            skewness = float((centered**3).mean())
        return Statistics(
            voxels=total,
            count=moments.count,
            mean=moments.mean,
            std=moments.std,
            median=median,
            deviation=(high - low) / _NORMAL_QUARTILES or moments.std,
            skewness=skewness,
        )


@dataclasses.dataclass(kw_only=True)
class _Moments:
    """Mean and standard deviation of values that are added part by part.

    Chan's update: sums of squares would lose all digits if the mean is far from 0 and the deviation small.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count)

    def add(self, values: Float[NDArray[np.float32], "..."]) -> None:
        if values.size:
            self.merge(values.size, float(values.mean(dtype=np.float64)), float(values.var(dtype=np.float64)))

    def merge(self, count: int, mean: float, variance: float) -> None:
        total = self.count + count
        self.squares += variance * count + (mean - self.mean) ** 2 * self.count * count / total
        self.mean += (mean - self.mean) * count / total
        self.count = total
