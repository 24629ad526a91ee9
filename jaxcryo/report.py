"""Results for people: tables of scores and counts, and a picture of slices with the picks marked."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.spatial import KDTree

from jaxcryo.calibration import Calibration
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.files import atomic_path
from jaxcryo.metric import RADIUS_SHARE, Score
from jaxcryo.picks.overview import Overview

_SLICES = 6
_HEATMAP_OPACITY = 0.6
_MOST_ROWS = 60


def score_table(result: Score, thresholds: Sequence[float] | None = None) -> str:
    """Truth, found, precision, recall and F4 of each type, the threshold if it is known, and the weighted F4."""
    width = max([len(t.name) for t in result.types] + [len("weighted F4")])
    head = f"{'':{width}}  truth  found  precision  recall     F4  weight"
    lines = [head + ("  threshold" if thresholds else "")]
    for i, (t, c) in enumerate(zip(result.types, result.counts, strict=True)):
        line = (
            f"{t.name:{width}}  {c.truth:5d}  {c.found:5d}  {c.precision:9.3f}  {c.recall:6.3f}  {c.f_beta:5.3f}  "
            f"{t.weight:6g}"
        )
        lines.append(line + (f"  {thresholds[i]:9.3f}" if thresholds else ""))
    lines.append(f"{'weighted F4':{width}}  {'':31}{result.weighted_f4_of_known:5.3f}")
    if result.unknown:
        missing = ", ".join(t.name for t in result.unknown)
        lines.append(f"without {missing}, of which no true position is known (the challenge's score counts each as 0: ")
        lines[-1] += f"{result.weighted_f4:.3f})"
    return "\n".join(lines)


def count_table(types: Sequence[ParticleType], counts: Sequence[int]) -> str:
    """Picks of each type and its threshold, where the truth is not known."""
    width = max(len(t.name) for t in types)
    lines = [f"{'':{width}}  found  threshold"]
    lines += [f"{t.name:{width}}  {n:5d}  {t.threshold:9.3f}" for t, n in zip(types, counts, strict=True)]
    return "\n".join(lines)


def shown_slices(depth: int) -> list[int]:
    """The slices that `draw_picks` shows."""
    return np.linspace(0, depth, _SLICES + 2)[1:-1].astype(int).tolist()


def draw_picks(
    path: str | pathlib.Path,
    volume: Volume,
    found: Picks,
    truth: Picks | None = None,
    heatmaps: Mapping[int, Float[NDArray[np.float32], "c y x"]] | None = None,
) -> None:
    """A PNG of evenly spaced slices with the picks near each; with the truth, hit, missed and false picks differ.

    Slices are means over five; a pick is shown on every slice that cuts through its particle. Heatmaps of
    `shown_slices` are laid over them in the types' colours.
    """
    depth = volume.grid.shape_zyx[0]
    levels = shown_slices(depth)
    figure = matplotlib.figure.Figure(figsize=(16, 11.5), layout="constrained")
    axes = figure.subplots(2, _SLICES // 2).ravel()
    marks = _marks(volume, found, truth)
    for axis, z in zip(axes, levels, strict=True):
        slab = volume.read(max(z - 2, 0), min(z + 3, depth)).mean(axis=0)
        data = slab[np.isfinite(slab)]
        low, high = np.percentile(data, (1, 99)) if data.size else (0, 1)
        axis.imshow(slab, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
        if heatmaps is not None and z in heatmaps:
            axis.imshow(_overlay(heatmaps[z], found.types), interpolation="bilinear")
        height, width = slab.shape
        axis.set(title=f"slice {z}", xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
        _draw_marks(axis, z, marks)
    handles = [
        Line2D([], [], marker="o", linestyle="", markerfacecolor="none", markersize=10,
               color=_rgb(t), label=t.name)
        for t in found.types
    ]  # fmt: skip
    if truth is not None:
        handles += [
            Line2D([], [], color="0.3", linestyle="-", label="hit"),
            Line2D([], [], color="0.3", linestyle=":", label="missed"),
            Line2D([], [], color="0.3", linestyle="--", marker="x", label="false"),
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(f"{volume.name}: {len(found)} picks" + (f", {len(truth)} in truth" if truth is not None else ""))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def draw_overview(path: str | pathlib.Path, overview: Overview) -> None:
    """Draws a batch's picks of each type in each tomogram, those with far fewer or more than the others named in red.

    Of more than sixty tomograms it shows those that differ most from the median.
    """
    total = overview.counts.sum(axis=1) + 1.0
    shown = np.argsort(-np.abs(np.log(total / np.median(total))), kind="stable")[:_MOST_ROWS]
    shown.sort()
    width = max(6.0, 1.2 * len(overview.types) + 3)
    figure = matplotlib.figure.Figure(figsize=(width, 1.6 + 0.26 * len(shown)), layout="constrained")
    axis = figure.subplots()
    # Each column in shares of its fullest tomogram, so that rare types are seen beside frequent ones.
    shares = overview.counts / np.maximum(overview.counts.max(axis=0, keepdims=True), 1)
    axis.imshow(shares[shown], cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for place, row in enumerate(shown.tolist()):
        for column in range(len(overview.types)):
            text = f"{overview.counts[row, column]}"
            if overview.expected_right is not None:
                text += f" ({overview.expected_right[row, column]:.0f})"
            axis.text(column, place, text, ha="center", va="center", fontsize=8)
    axis.set_xticks(range(len(overview.types)), [t.name for t in overview.types], rotation=20, ha="right", fontsize=8)
    axis.set_yticks(range(len(shown)), [overview.runs[row] for row in shown.tolist()], fontsize=8)
    strange = {o.run for o in overview.outliers}
    for label in axis.get_yticklabels():
        if label.get_text() in strange:
            label.set_color("red")
    title = "picks" + ("" if overview.expected_right is None else " (expected to be right)")
    if len(shown) < len(overview.runs):
        title += f", in the {len(shown)} of {len(overview.runs)} tomograms that differ most from the median"
    axis.set_title(title, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def draw_reliability(path: str | pathlib.Path, calibration: Calibration) -> None:
    """A PNG of the share of candidates that were right against their chance, and of their numbers."""
    bins = calibration.reliability
    figure = matplotlib.figure.Figure(figsize=(5, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    upper.plot([b.chance for b in bins], [b.right for b in bins], "o-", color="C0")
    error = calibration.expected_error
    upper.set(
        ylabel="share that was right", xlim=(0, 1), ylim=(0, 1), aspect="equal",
        title="no reliability: one tomogram" if error is None else
        f"{calibration.tomograms} held-out tomograms, expected calibration error {error:.3f}",
    )  # fmt: skip
    lower.bar([b.chance for b in bins], [b.candidates for b in bins], width=0.06, color="C0")
    lower.set(xlabel="calibrated chance of being right", ylabel="candidates")
    if bins:
        lower.set_yscale("log")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Marks:
    """Circles of one type that look alike."""

    zyx_voxel: Float[NDArray[np.float64], "n 3"]
    radius_voxel: float
    color: tuple[float, float, float]
    style: str


def _marks(volume: Volume, found: Picks, truth: Picks | None) -> list[_Marks]:
    marks = []
    for i, kind in enumerate(found.types):
        own = found.of_type(i)
        real = np.zeros((0, 3)) if truth is None else truth.of_type(i)
        reach = RADIUS_SHARE * kind.radius_angstrom
        right = _near(own, real, reach) if truth is not None else np.ones(len(own), bool)
        missed = ~_near(real, own, reach)
        for xyz, style in ((own[right], "-"), (own[~right], "--"), (real[missed], ":")):
            marks.append(
                _Marks(
                    zyx_voxel=volume.grid.to_voxel(xyz),
                    radius_voxel=kind.radius_angstrom / volume.grid.spacing_angstrom,
                    color=_rgb(kind),
                    style=style,
                )
            )
    return marks


def _rgb(kind: ParticleType) -> tuple[float, float, float]:
    red, green, blue = kind.color
    return red / 255, green / 255, blue / 255


def _overlay(heatmap: Float[NDArray[np.float32], "c y x"], types: Sequence[ParticleType]) -> NDArray[np.float32]:
    """The strongest type's colour in each voxel, as opaque as its heatmap is high."""
    strongest = heatmap.argmax(axis=0)
    colors = np.array([_rgb(t) for t in types], np.float32)[strongest]
    opacity = _HEATMAP_OPACITY * np.clip(heatmap.max(axis=0), 0, 1)
    return np.concatenate([colors, opacity[..., None]], axis=-1).astype(np.float32)


def _near(points: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    if len(points) == 0 or len(others) == 0:
        return np.zeros(len(points), bool)
    return np.isfinite(KDTree(others).query(points, distance_upper_bound=reach)[0])


def _draw_marks(axis: Axes, z: int, marks: Sequence[_Marks]) -> None:
    for mark in marks:
        distance = np.abs(mark.zyx_voxel[:, 0] - z)
        near = distance <= mark.radius_voxel
        size = 2 * np.maximum(np.sqrt(mark.radius_voxel**2 - distance[near] ** 2), 3)
        xy = mark.zyx_voxel[near][:, :0:-1]
        axis.add_collection(
            EllipseCollection(
                size, size, np.zeros(len(size)), units="xy", offsets=xy, offset_transform=axis.transData,
                facecolors="none", edgecolors=[mark.color], linestyles=mark.style, linewidths=1.3,
            )
        )  # fmt: skip
        if mark.style == "--":
            axis.plot(xy[:, 0], xy[:, 1], "x", color=mark.color, markersize=5)
