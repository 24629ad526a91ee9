"""F4 against the number of marks of a type, from scratch and from the bundled network, partial-aware or not.

python benchmarks/marks.py OUT --minutes 20                        (hours; every case is kept as it is done)
python benchmarks/marks.py OUT --picture docs/marks.png            (draws what is there)

Two phantoms are made of a family that no bundled network has seen: other imaging, other company. Some particles of each
type are marked in the first, by chance, and a training learns from it alone (a part of it is held out); it is measured
on the second, all of whose particles are known. Started again with the same OUT it goes on with the case after the last
one that is in OUT/results.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import pathlib
import shutil
import time
from typing import Any

import matplotlib.figure
import numpy as np

from jaxcryo.cli.train import main as train
from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.metric import score
from jaxcryo.models import build
from jaxcryo.phantom import DrawConfig, write_dataset
from jaxcryo.picking.preprocess import SPACING_TOLERANCE
from jaxcryo.picks.formats import format_of, write_picks
from jaxcryo.project.dataset import find_runs, read_truth
from jaxcryo.tomogram.volumes import open_volume
from jaxcryo.training.validation import flax_model, validate
from jaxcryo.weights import load_model

STARTS = {"from scratch": ["--from-scratch"], "from the bundled network": ["--init", "bundled"]}
LABELS = ("partial", "complete")
ALL = 10**6
SEED = 731


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One training."""

    marks: int
    """Of each type at most."""
    start: str
    labels: str

    @property
    def name(self) -> str:
        """For a folder."""
        count = "all" if self.marks == ALL else str(self.marks)
        return f"{count}-{'bundled' if 'bundled' in self.start else 'scratch'}-{self.labels}"


def main() -> None:
    """Runs the cases that are left, and prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, metavar="OUT")
    parser.add_argument(
        "--marks",
        type=lambda s: ALL if s == "all" else int(s),
        nargs="+",
        default=[3, 10, 25, ALL],
        help="of each type; default 3 10 25 all",
    )
    parser.add_argument("--starts", choices=STARTS, nargs="+", default=list(STARTS), help="default both")
    parser.add_argument("--minutes", type=float, help="of each training; none is started without it")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--size", default="small")
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 320, 320), metavar=("Z", "Y", "X"))
    parser.add_argument("--picture", type=pathlib.Path, metavar="PNG")
    args = parser.parse_args()
    _check_same(args)
    results = args.out / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if args.minutes or args.steps:
        truth = _data(args.out, tuple(args.shape))
        for marks, start, labels in itertools.product(args.marks, args.starts, LABELS):
            case = Case(marks=marks, start=start, labels=labels)
            if any(row["case"] == dataclasses.asdict(case) for row in done):
                continue
            done.append(_measured(args, case, truth))
            with results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    for row in done:
        print(_line(row))
    if args.picture is not None:
        _draw(done, args.picture)


def _check_same(args: argparse.Namespace) -> None:
    """Ends where the folder has results of trainings of another length or size."""
    if not (args.minutes or args.steps):
        return
    own = {"minutes": args.minutes, "steps": args.steps, "size": args.size, "shape": list(args.shape)}
    file = args.out / "trainings.json"
    if file.exists() and json.loads(file.read_text()) != own:
        raise SystemExit(f"{args.out} has results of {file.read_text()}; choose another OUT for {json.dumps(own)}")
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(own))


def _data(out: pathlib.Path, shape_zyx: tuple[int, int, int]) -> dict[str, Picks]:
    """Makes both phantoms; the particles of each."""
    folder = out / "phantoms"
    if not folder.is_dir():
        fresh = out / "phantoms-unfinished"
        shutil.rmtree(fresh, ignore_errors=True)
        write_dataset(fresh, DrawConfig(shape_zyx=shape_zyx, family="stranger"), seed=SEED, runs=2, progress=True)
        fresh.rename(folder)
    run = find_runs(folder, split="train")[0]
    (out / "one").mkdir(exist_ok=True)
    link = out / "one" / f"{run.name}.zarr"
    if not link.exists():
        link.symlink_to(run.volume_path.resolve())
    return read_truth(folder, CZII_TYPES)


def _measured(args: argparse.Namespace, case: Case, truth: dict[str, Picks]) -> dict[str, Any]:
    """Trains, and measures on the second phantom."""
    learned, unseen = find_runs(args.out / "phantoms", split="train")
    rng = np.random.default_rng(SEED)
    picks = truth[learned.name]
    chosen = [
        rng.permutation(np.flatnonzero(picks.type_index == i))[: case.marks] for i in range(len(CZII_TYPES))
    ]  # the fewer are among the more
    marks = picks.select(np.concatenate(chosen))
    table = args.out / f"{case.name}.csv"
    write_picks({learned.name: marks}, table, format_of("csv"), force=True)
    run = args.out / case.name
    began = time.monotonic()
    length = ["--steps", args.steps] if args.steps else ["--minutes", args.minutes]
    options = ["--arch", "tattaka", "--size", args.size, "--data", args.out / "one", "--picks", table, "--out", run,
               "--labels", case.labels, *STARTS[case.start], *length]  # fmt: skip
    if train([str(o) for o in options]):
        raise SystemExit(f"{case.name}: the training failed")
    seconds = time.monotonic() - began
    model = load_model(run / "last.safetensors")
    network, _, _ = build(model.config.model, seed=None)
    volume = open_volume(unseen.volume_path, name=unseen.name)
    assert model.spacing_angstrom is not None
    assert abs(volume.grid.spacing_angstrom / model.spacing_angstrom - 1) < SPACING_TOLERANCE
    opened = flax_model(network, model.params, model.stats, model.config, name=case.name)
    found = validate(opened, volume, truth[unseen.name], model.types, model.config)
    own = {unseen.name: found.picks.above([t.threshold for t in model.types])}
    at_own = score({unseen.name: truth[unseen.name]}, own, model.types)
    return {
        "case": dataclasses.asdict(case),
        "marked": marks.counts(),
        "seconds": round(seconds),
        "f4": round(at_own.weighted_f4_of_known, 4),
        "f4_at_best_thresholds": round(found.best.weighted_f4_of_known, 4),
        "f4_of_types": {t.name: round(c.f_beta, 4) for t, c in zip(found.types, found.best.counts, strict=True)},
    }


def _line(row: dict[str, Any]) -> str:
    case = Case(**row["case"])
    return (
        f"{case.name:24} {sum(row['marked'].values()):5d} marks  F4 {row['f4']:.3f}, at the best thresholds "
        f"{row['f4_at_best_thresholds']:.3f}  ({row['seconds']} s)"
    )


def _draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    figure = matplotlib.figure.Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (start, color), labels in itertools.product(zip(STARTS, ("#8a94a0", "#0b66c3"), strict=True), LABELS):
        own = [r for r in rows if r["case"]["start"] == start and r["case"]["labels"] == labels]
        own.sort(key=lambda r: sum(r["marked"].values()))
        axes.plot(
            [sum(r["marked"].values()) for r in own],
            [r["f4_at_best_thresholds"] for r in own],
            marker="o",
            color=color,
            linestyle="-" if labels == "partial" else ":",
            label=f"{start}, unmarked is {'unknown' if labels == 'partial' else 'background'}",
        )
    axes.set(xscale="log", xlabel="marked particles of all types", ylabel="weighted F4, best thresholds", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
