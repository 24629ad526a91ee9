"""Where a folder of models ends: weighted F4 with thresholds found without truth, along each axis of imaging.

    python benchmarks/robustness.py --engines jaxcryo/demo --picture docs/robustness.png

Every phantom has the settings of a real tomogram but one, which goes from easy to hopeless. No training has seen their
seeds. The table is Markdown. With the bundled models on two cores: about half a minute a phantom.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from jaxcryo.calibration import Calibration, mean_calibration
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.metric import Score, score
from jaxcryo.phantom.drawing import draw_phantom
from jaxcryo.phantom.settings import REAL_CENTER, REAL_CONTENTS, DrawConfig
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.preprocess import fit_volume
from jaxcryo.picking.thresholds import decide
from jaxcryo.picks.candidates import floor_of
from jaxcryo.runtime.backends import choose_backend, open_model
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.statistics import surveyed

SEED = 2026
FAMILY = 77
"""Seeds of trainings and of their held-out phantoms have other numbers here."""
SIGNAL = 2.38
"""Of the real tomogram: a body of 100 Å over the noise's deviation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """One setting, from easy to hopeless; all others are the real tomogram's."""

    name: str
    unit: str
    levels: Mapping[str, Mapping[str, Any]]
    """What is written at the axis, and the fields of the imaging or the contents that are changed."""


def _levels(field: str, values: Sequence[float], labels: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    shown = labels or [f"{v:g}" for v in values]
    return {label: {field: (v, v)} for label, v in zip(shown, values, strict=True)}


def _crowd(times: float) -> dict[str, Any]:
    names = ("fragments", "company", "aggregates")
    return {n: tuple(times * v for v in getattr(REAL_CONTENTS, n)) for n in names}


AXES = (
    Axis(
        name="signal to noise",
        unit="of the real tomogram's",
        levels=_levels("snr", [SIGNAL * s for s in (4, 2, 1, 0.5, 0.25, 0.125)], ["4", "2", "1", "1/2", "1/4", "1/8"]),
    ),
    Axis(name="tilts end at", unit="±°", levels=_levels("tilt_range_degree", (70, 60, 46, 35, 25))),
    Axis(
        name="defocus", unit="µm", levels=_levels("defocus_angstrom", (12e3, 18e3, 4e4, 8e4), ["1.2", "1.8", "4", "8"])
    ),
    Axis(name="filtered to", unit="Å", levels=_levels("resolution_angstrom", (18, 29, 50, 80))),
    Axis(name="power of 1/k (SIRT-like)", unit="", levels=_levels("sirt", (0.0, 0.67, 1.2, 1.8))),
    Axis(name="direction of the tilt axis", unit="° from y", levels=_levels("axis_degree", (0, 10, 45, 90))),
    Axis(name="slow waves", unit="of the noise", levels=_levels("slow", (0.07, 0.5, 1.5, 4))),
    Axis(name="other bodies", unit="of the real tomogram's", levels={f"{n:g}": _crowd(n) for n in (0.25, 1, 3)}),
    Axis(name="voxel size", unit="Å, resampled", levels={f"{v:g}": {"spacing_angstrom": v} for v in (6, 10, 14, 20)}),
    Axis(
        name="also",
        unit="",
        levels={
            "empty border": {"border": 1.0},
            "8 bits": {"bytes_share": 1.0},
            "phases not flipped": {"uncorrected": 1.0},
            "gold": {"gold": 1.0},
            "carbon": {"carbon": 1.0},
            "not denoised": {"texture": (0.0, 0.0), "shrinkage": (0.0, 0.0), "halo": (1.0, 1.0)},
        },
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one level."""

    axis: str
    level: str
    score: Score
    found: int
    right: int
    expected: float
    """How many were expected to be right."""


def main() -> None:
    """Draws, picks, prints, plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", type=pathlib.Path, default=pathlib.Path("jaxcryo/demo"))
    parser.add_argument("--runs", type=int, default=2, help="phantoms of each level")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 256, 256), help="of phantoms of 10 Å voxels")
    parser.add_argument("--axes", nargs="+", choices=[a.name for a in AXES], help="only these")
    parser.add_argument("--picture", type=pathlib.Path, metavar="PNG")
    options = parser.parse_args()
    entries = read_manifest(options.engines)
    backend, _ = choose_backend("auto", options.engines, entries)
    models = [open_model(options.engines, e, backend) for e in entries]
    calibration = mean_calibration([e.calibration for e in entries])
    print("| setting | level | weighted F4 | right, of the picks | expected to be right |")
    print("|---|---|---|---|---|")
    rows = []
    for axis in AXES:
        if options.axes and axis.name not in options.axes:
            continue
        for level, changes in axis.levels.items():
            config = _config(changes, entries[0].types)
            pairs = [_picked(config, r, tuple(options.shape), models, entries) for r in range(options.runs)]
            rows.append(_row(axis, level, pairs, entries[0].types, calibration))
            r = rows[-1]
            named = f"{axis.name}{', ' + axis.unit if axis.unit else ''}"
            expected = f"{r.expected:.0f}" if np.isfinite(r.expected) else "–"
            print(
                f"| {named} | {level} | {r.score.weighted_f4:.2f} | {r.right} of {r.found} | {expected} |", flush=True
            )
    if options.picture is not None:
        _draw(rows, options.picture)


def _config(changes: Mapping[str, Any], types: tuple[ParticleType, ...]) -> DrawConfig:
    """Phantoms of the real settings with these changes, and enough particles for a small volume."""

    def own(record: Any) -> dict[str, Any]:
        return {k: v for k, v in changes.items() if k in {f.name for f in dataclasses.fields(record)}}

    imaging = dataclasses.replace(REAL_CENTER, contrast=(0.75, 1.3), **own(REAL_CENTER))
    contents = dataclasses.replace(REAL_CONTENTS, abundance=(3.0, 3.0), **own(REAL_CONTENTS))
    config = DrawConfig(types=types, imaging=imaging, contents=contents, center_share=0.0)
    return dataclasses.replace(config, **own(config))


def _picked(
    config: DrawConfig, run: int, shape_zyx: tuple[int, ...], models: Sequence[OpenModel], entries: Sequence[Any]
) -> tuple[Picks, Picks]:
    """Candidates and truth of one phantom, which covers the same space at any voxel size."""
    z, y, x = (max(8, round(n * 10.0 / config.spacing_angstrom)) for n in shape_zyx)
    phantom = draw_phantom(config, (SEED, FAMILY, run), (z, y, x))
    grid = config.grid((z, y, x))
    volume = surveyed(Volume(name=f"run {run}", voxels=phantom.voxels, grid=grid))
    fitted = fit_volume(volume, entries)
    types = entries[0].types
    candidates = find_picks(fitted, models, types, config=entries[0].inference, floor=floor_of(types))
    truth = Picks(
        run=candidates.run,
        types=config.types,
        xyz_angstrom=grid.to_angstrom(phantom.centers_zyx_voxel),
        type_index=phantom.type_index,
    )
    return candidates, truth


def _row(
    axis: Axis,
    level: str,
    pairs: Sequence[tuple[Picks, Picks]],
    types: Sequence[ParticleType],
    calibration: Calibration | None,
) -> Row:
    # Runs of one level are a batch, as a user's would be.
    named = [(dataclasses.replace(c, run=str(n)), dataclasses.replace(t, run=str(n))) for n, (c, t) in enumerate(pairs)]
    decision = decide([c for c, _ in named], types, calibration)
    picks = [decision.select(c) for c, _ in named]
    result = score({t.run: t for _, t in named}, {p.run: p for p in picks}, decision.types)
    expected = decision.expected_right(picks)
    return Row(
        axis=axis.name,
        level=level,
        score=result,
        found=sum(c.found for c in result.counts),
        right=sum(c.true_positive for c in result.counts),
        expected=float("nan") if expected is None else float(sum(expected)),
    )


def _draw(rows: Sequence[Row], picture: pathlib.Path) -> None:
    axes = list(dict.fromkeys(r.axis for r in rows))
    columns = min(5, len(axes))
    lines = -(-len(axes) // columns)
    figure = matplotlib.figure.Figure(figsize=(3.2 * columns, 2.8 * lines), layout="constrained")
    units = {a.name: a.unit for a in AXES}
    for place, name in enumerate(axes, start=1):
        own = [r for r in rows if r.axis == name]
        plot = figure.add_subplot(lines, columns, place)
        plot.plot(range(len(own)), [r.score.weighted_f4 for r in own], "o-", color="#1f6fb2")
        turn = {"rotation": 30, "ha": "right"} if max(len(r.level) for r in own) > 6 else {}
        plot.set_xticks(range(len(own)), [r.level for r in own], **turn)
        plot.set(ylim=(0, 1), title=name, xlabel=units[name])
        plot.grid(alpha=0.3)
        if place % columns == 1:
            plot.set_ylabel("weighted F4")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
