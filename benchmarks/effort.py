"""What fewer and larger windows cost: weighted F4 on an unseen phantom against time, as a table and a picture.

python benchmarks/effort.py runs/tattaka-small-fold0 --data data/phantom --picture docs/effort.png

The run is one whose picks are known and that the network has not seen. Windows move by a share of their size (z, y,
x), all engines are OpenVINO's.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import tempfile
import time

import matplotlib.figure

from jaxcryo.convert.export import weights_file
from jaxcryo.convert.onnx_models import OnnxOptions, convert_model
from jaxcryo.domain import Picks, Volume
from jaxcryo.metric import score
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.windows import plan_windows
from jaxcryo.project.dataset import find_runs, read_truth
from jaxcryo.runtime.backends import open_model
from jaxcryo.runtime.opened import IN_PLANE_FLIPS, NO_FLIPS
from jaxcryo.tomogram.volumes import open_volume
from jaxcryo.weights import TrainedModel, load_model

FULL, BALANCED, FAST = (1 / 2, 3 / 8, 3 / 8), (1 / 2, 5 / 8, 5 / 8), (3 / 4, 7 / 8, 7 / 8)
STRIDES = {"full": FULL, "balanced": BALANCED, "3/4": (3 / 4,) * 3, "fast": FAST, "no overlap": (1.0,) * 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One way to run the network."""

    name: str
    window: str
    windows: int
    seconds: float
    f4: float


def main() -> None:
    """Prints the table and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=pathlib.Path, metavar="RUN_OR_WEIGHTS")
    parser.add_argument("--data", required=True, help="with test runs whose picks are known")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--picture", type=pathlib.Path, metavar="PNG")
    args = parser.parse_args()
    model = load_model(weights_file(args.weights))
    run = find_runs(args.data, split="test")[0]
    volume = open_volume(run.volume_path, name=run.name)
    truth = read_truth(args.data, model.types, [run.name])[run.name]
    own = model.config.model.patch_zyx
    large = (own[0], 2 * own[1], 2 * own[2])
    print(f"{'':16}  {'window':12}  windows  seconds  weighted F4   ({volume.name}, {args.precision})")
    rows = []
    cases = [(name, own, share, False) for name, share in STRIDES.items()]
    cases += [("larger, 3/4", large, (3 / 4,) * 3, False), ("larger, fast", large, FAST, False)]
    cases += [("3/4 with --tta", own, (3 / 4,) * 3, True)]
    for name, window, share, tta in cases:
        rows.append(_row(model, name, window, share, tta, volume, truth, args.precision))
        r = rows[-1]
        print(f"{r.name:16}  {r.window:12}  {r.windows:7}  {r.seconds:7.1f}  {r.f4:11.3f}", flush=True)
    if args.picture is not None:
        _draw(rows, args.picture)


def _row(
    model: TrainedModel, name: str, window: tuple[int, int, int], share: tuple[float, ...], tta: bool, volume: Volume,
    truth: Picks, precision: str,
) -> Row:  # fmt: skip
    z, y, x = (int(s * n) for s, n in zip(share, window, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        entry = convert_model(model, "a", place, OnnxOptions(window_zyx=window), source=str(place / "a" / "a"))
        entry = dataclasses.replace(entry, precision=precision, stride_zyx=(z, y, x))
        engine = open_model(place, entry, "openvino")
    engine = dataclasses.replace(engine, flips=IN_PLANE_FLIPS if tta else NO_FLIPS)
    began = time.perf_counter()
    picks = find_picks(volume, [engine], model.types, config=model.config.inference)
    return Row(
        name=name,
        window="×".join(map(str, window)),
        windows=plan_windows(volume.grid.shape_zyx, window, (z, y, x)).count,
        seconds=time.perf_counter() - began,
        f4=score({volume.name: truth}, {volume.name: picks}, model.types).weighted_f4,
    )


def _draw(rows: list[Row], path: pathlib.Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        larger = row.name.startswith("larger")
        marker = "s" if larger else "^" if "tta" in row.name else "o"
        axis.plot(row.seconds, row.f4, marker, color="tab:orange" if larger else "tab:blue", markersize=8)
        axis.annotate(row.name, (row.seconds, row.f4), xytext=(7, 5), textcoords="offset points")
    axis.set(xlabel="seconds a tomogram, two CPU cores", ylabel="weighted F4 on an unseen phantom", xscale="log")
    axis.margins(0.15)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
