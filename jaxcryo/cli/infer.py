"""`infer.py`: finds particles in every run of a dataset."""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxcryo.cli.common import parser, reports_errors
from jaxcryo.config import InferenceConfig
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.inference.backends import BACKENDS, choose_backend, ensemble_types, open_engine
from jaxcryo.inference.engine import Engine, EngineError
from jaxcryo.inference.manifest import EngineEntry, read_manifest
from jaxcryo.inference.pipeline import find_picks
from jaxcryo.io.atomic import write_text
from jaxcryo.io.dataset import Run, find_runs
from jaxcryo.io.picks import read_copick_folder, write_copick_picks, write_submission
from jaxcryo.io.truth import read_truth
from jaxcryo.io.volumes import open_volume
from jaxcryo.metric import score
from jaxcryo.phantom import PhantomConfig, write_dataset
from jaxcryo.report import count_table, draw_picks, score_table

EXAMPLES = """examples:
  python infer.py --demo
      a phantom tomogram, the small engines that come with the project, and a score, in about a minute
  python infer.py --engines out/ --data data/ --out picks/
      all runs of a dataset; started again it skips the runs that are done
  python infer.py --engines out/ --data data/ --runs TS_5_4 TS_6_4
      these runs only
  python infer.py --engines out/ --data tomograms/ --voxel-spacing 7.84
      a folder of .mrc or .zarr files whose headers give a wrong spacing

Next: python -m jaxcryo.score picks/ data/   where particles are known
"""
DEMO_ENGINES = pathlib.Path(__file__).parents[1] / "demo"
DEMO_SEED = 20260
DEMO_SHAPE_ZYX = (128, 400, 400)
_SPACING_TOLERANCE = 0.02


@reports_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    args = _parser().parse_args(argv)
    if args.demo:
        return _demo(args)
    if args.engines is None:
        raise InputError("no engines were given; say --engines out/ (what 'python -m convert onnx' wrote), or --demo")
    return _infer(args)


def _demo(args: argparse.Namespace) -> int:
    out = pathlib.Path(args.out or "demo")
    data = out / "data"
    config = PhantomConfig(shape_zyx=DEMO_SHAPE_ZYX)
    print(f"1. Making a phantom tomogram of {_x(config.shape_zyx)} voxels that no training has seen, in {data}")
    if out.exists() and not (out / "settings.json").exists() and any(out.iterdir()):
        raise InputError(f"{out}: exists and is not an earlier demo; choose another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    write_dataset(data, config, seed=DEMO_SEED, runs=0, test_runs=1, progress=True)
    args.data, args.out, args.engines, args.runs = str(data), str(out), args.engines or str(DEMO_ENGINES), None
    print("2. Finding the particles")
    code = _infer(args)
    print("next: a dataset to train on, as README.md goes on:\n  python -m jaxcryo.phantom data/phantom --runs 3")
    return code


def _infer(args: argparse.Namespace) -> int:
    folder, out = pathlib.Path(args.engines), pathlib.Path(args.out or "picks")
    entries = read_manifest(folder)
    runs = find_runs(args.data, names=args.runs, tomogram_type=args.tomogram_type)
    types = ensemble_types(entries)
    settings = _settings(entries, types, args.voxel_spacing)
    done = _done(out, settings, runs, force=args.force)
    backend, reason = choose_backend(args.backend)
    print(
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} of {args.data}, {len(entries)} model"
        f"{'s averaged' if len(entries) > 1 else ''} ({', '.join(e.name for e in entries)}) by {backend} ({reason}), "
        f"into {out}"
    )
    write_text(out / "settings.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    engines = [open_engine(folder, e, backend) for e in entries]
    truth = _truth_where_known(args.data, types)
    failed: dict[str, str] = {}
    written: list[pathlib.Path] = []
    for number, run in enumerate(runs, 1):
        label = f"[{number}/{len(runs)}] {run.name}"
        if run.name in done:
            print(f"{label}: is done already")
            continue
        try:
            written.append(_one(run, label, engines, entries, types, truth.get(run.name), out, args.voxel_spacing))
        except (InputError, EngineError) as error:
            failed[run.name] = str(error)
            print(f"{label}: failed: {error}", file=sys.stderr)
    finished = [r.name for r in runs if r.name not in failed]
    if finished:
        found = read_copick_folder(out, types, finished)
        write_submission(list(found.values()), out / "submission.csv")
        _summary(found, types, {r: truth[r] for r in finished if r in truth})
        print("wrote:")
        print(f"  {out / 'submission.csv'}  (Kaggle's table)")
        print(f"  {out / 'ExperimentRuns'}  (copick picks with scores, one folder a run)")
        for picture in written:
            print(f"  {picture}  (slices with the picks)")
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed:", file=sys.stderr)
        for name, message in failed.items():
            print(f"  {name}: {message}", file=sys.stderr)
        return 1
    return 0


def _one(
    run: Run,
    label: str,
    engines: Sequence[Engine],
    entries: Sequence[EngineEntry],
    types: tuple[ParticleType, ...],
    truth: Picks | None,
    out: pathlib.Path,
    spacing_angstrom: float | None,
) -> pathlib.Path:
    """Picks of one run, written whole; returns the picture's path."""
    began = time.monotonic()
    volume = open_volume(run.volume_path, name=run.name, spacing_angstrom=spacing_angstrom)
    _warn_of_spacing(volume, entries)
    with tqdm(desc=label, unit="window", mininterval=0.5) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        picks = find_picks(volume, engines, types, config=entries[0].inference, on_windows=show)
    picture = out / "pictures" / f"{run.name}.png"
    draw_picks(picture, volume, picks, truth)
    # The picks come last and whole: a run counts as done when they are there.
    write_copick_picks(picks, out)
    print(f"{label}: {len(picks)} picks in {time.monotonic() - began:.1f} s")
    return picture


def _summary(found: dict[str, Picks], types: tuple[ParticleType, ...], truth: dict[str, Picks]) -> None:
    thresholds = [t.threshold for t in types]
    if truth:
        print(f"\nagainst the known picks of {', '.join(truth)}:")
        print(score_table(score(truth, found, types), thresholds))
    rest = [p for run, p in found.items() if run not in truth]
    if rest:
        counts = np.sum([np.bincount(p.type_index, minlength=len(types)) for p in rest], axis=0)
        print(f"\npicks of {len(rest)} runs:")
        print(count_table(types, counts.tolist()))


def _warn_of_spacing(volume: Volume, entries: Sequence[EngineEntry]) -> None:
    spacing = volume.grid.spacing_angstrom
    for entry in entries:
        if abs(spacing / entry.spacing_angstrom - 1) > _SPACING_TOLERANCE:
            tqdm.write(
                f"{volume.name}: its voxels are {spacing:.3f} Å, {entry.name} was trained on "
                f"{entry.spacing_angstrom:.3f} Å: expect poor picks (if the file is wrong, give the true spacing with "
                "--voxel-spacing)"
            )


def _truth_where_known(data: str, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    try:
        return read_truth(data, types)
    except InputError:
        return {}


def _settings(
    entries: Sequence[EngineEntry], types: Sequence[ParticleType], spacing_angstrom: float | None
) -> dict[str, Any]:
    """What decides the picks; results of other settings are not mixed."""
    inference: InferenceConfig = entries[0].inference
    return {
        "engines": [
            {"name": e.name, "onnx_sha256": e.onnx_sha256, "stride_zyx": list(e.stride_zyx), "source": e.source}
            for e in entries
        ],
        "thresholds": {t.name: t.threshold for t in types},
        "nms_voxel": inference.nms_voxel,
        "merge_radius": inference.merge_radius,
        "voxel_spacing_angstrom": spacing_angstrom,
    }


def _done(out: pathlib.Path, settings: dict[str, Any], runs: Sequence[Run], *, force: bool) -> set[str]:
    """The runs whose picks of these very settings are in the folder."""
    present = {r.name for r in runs if any((out / "ExperimentRuns" / r.name / "Picks").glob("jaxcryo_0_*.json"))}
    if not present or force:
        return set()
    path = out / "settings.json"
    try:
        same = json.loads(path.read_text()) == json.loads(json.dumps(settings))
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"{out}: holds picks of {', '.join(sorted(present))} by other engines or settings; choose another folder "
            "with --out, or replace them with --force"
        )
    complete = len(settings["thresholds"])
    return {
        name
        for name in present
        if len(list((out / "ExperimentRuns" / name / "Picks").glob("jaxcryo_0_*.json"))) == complete
    }


def _parser() -> argparse.ArgumentParser:
    p = parser("Find particles in tomograms.", EXAMPLES)
    p.add_argument(
        "--engines", metavar="DIR", help="folder that 'python -m convert onnx' wrote; all in it are averaged"
    )
    p.add_argument("--data", default="data", metavar="DIR", help="dataset, folder of tomograms, or one tomogram")
    p.add_argument("--out", metavar="PICKS", help="folder for the results (default: picks, or demo with --demo)")
    p.add_argument("--runs", nargs="+", metavar="NAME", help="these runs only")
    p.add_argument("--backend", default="auto", choices=BACKENDS, help="what runs the networks")
    p.add_argument("--voxel-spacing", type=float, metavar="ANGSTROM", help="instead of the files' own")
    p.add_argument("--tomogram-type", default="denoised", help="which reconstruction, where a run has several")
    p.add_argument("--force", action="store_true", help="replace results that are there")
    p.add_argument("--demo", action="store_true", help="try the program on a phantom, with the engines that come along")
    return p


def _x(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
