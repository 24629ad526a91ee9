"""`infer.py`: finds particles in every run of a dataset."""

from __future__ import annotations

import argparse
import functools
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from jaxcryo.cli.common import parser, reports_errors
from jaxcryo.cli.exports import add_export_options, check_foreign, export_frames, write_exports
from jaxcryo.cli.inputs import add_source_options, known_picks, reading_of, source_of
from jaxcryo.cli.napari_view import napari_view
from jaxcryo.cli.pages import list_pages, page_notes
from jaxcryo.cli.picker import Job, PickedRun, RunTask, open_picker
from jaxcryo.cli.run_options import Shard, add_extent_options, with_extent
from jaxcryo.cli.settings import FILE_NAME, runs_done, settings_of
from jaxcryo.cli.window_bars import WindowBars
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.metric import score
from jaxcryo.phantom import PhantomConfig, write_dataset
from jaxcryo.picking.preprocess import engine_spacing
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.picks.formats.tables import write_submission
from jaxcryo.picks.thresholds import read_thresholds, with_thresholds
from jaxcryo.project.copick import check_no_own_files, write_project_picks
from jaxcryo.project.mask import check_mask
from jaxcryo.report import count_table, score_table
from jaxcryo.runtime.backends import backend_names, choose_backend, choose_precision, ensemble_types
from jaxcryo.runtime.cuda import jax_gpus, share_memory
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.runtime.precision import PRECISIONS
from jaxcryo.runtime.workers import Outcome, Place, in_turn, plan_places, side_by_side
from jaxcryo.tomogram.volumes import Reading

EXAMPLES = """examples:
  python infer.py --demo
      a phantom tomogram, the small engines that come with the project, and a score, in about a minute
  python infer.py --engines out/ --data data/ --out picks/
      all runs of a dataset; started again it skips the runs that are done
  python infer.py --engines out/ --data data/ --runs TS_5_4 TS_6_4
      these runs only
  python infer.py --engines out/ --data tomograms/ --voxel-spacing 7.84
      a folder of .mrc or .zarr files whose headers give a wrong spacing
  python infer.py --engines out/ --data data/ --shard 3/20
      the third of twenty parts of the runs, as one task of a job array; when all are done, the same command without
      --shard writes the tables
  python infer.py --engines out/ --copick config.json
      a copick project: the picks also go into its overlay, as user jaxcryo

Next: jaxcryo score picks/ data/   where particles are known
"""
DEMO_ENGINES = pathlib.Path(__file__).parents[1] / "demo"
DEMO_SEED = 20260
DEMO_SHAPE_ZYX = (128, 400, 400)


@reports_errors
def main(argv: Sequence[str] | None = None, *, prog: str = "python infer.py") -> int:
    """Runs the command."""
    args = _parser(prog).parse_args(argv)
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
    args.copick = None
    print("2. Finding the particles")
    code = _infer(args)
    print("next: a dataset to train on, as README.md goes on:\n  jaxcryo phantom data/phantom --runs 3")
    return code


def _infer(args: argparse.Namespace) -> int:
    folder, out = pathlib.Path(args.engines), pathlib.Path(args.out or "picks")
    entries = tuple(with_extent(e, args) for e in read_manifest(folder))
    source, reading = source_of(args, near_angstrom=engine_spacing(entries)), reading_of(args)
    shard: Shard | None = args.shard
    runs = source.runs if shard is None else shard.of(source.runs)
    if not runs:
        print(f"{source.place} has {len(source.runs)} runs: nothing is left for shard {shard}")
        return 0
    types = ensemble_types(entries)
    if args.thresholds is not None:
        types = with_thresholds(types, read_thresholds(args.thresholds))
    view = napari_view() if args.view == "napari" else None
    backend, reason = choose_backend(args.backend, folder, entries)
    entries, precision = choose_precision(args.precision, backend, entries)
    settings = settings_of(entries, types, reading, tta=args.tta)
    if args.mask is not None:
        check_mask(args.mask)
        settings["mask"] = str(pathlib.Path(args.mask).absolute())
    frames = export_frames(args, out, runs)
    check_foreign(args, out)
    done = runs_done(out, settings, runs, force=args.force)
    if source.project is not None and not args.force:
        check_no_own_files(source.project, [r.name for r in runs if r.name not in done])
    if backend == "tensorrt":
        share_memory()
    truth = known_picks(args, source, types)
    tasks = [
        RunTask(run=run, label=f"[{number}/{len(runs)}] {run.name}", truth=truth.get(run.name))
        for number, run in enumerate(runs, 1)
    ]
    page = page_notes(entries, backend=backend, reason=reason, settings=settings, engines=str(folder), out=str(out))
    places = plan_places(args.processes, () if backend == "openvino" else jax_gpus(), len(runs) - len(done))
    part = "" if shard is None else f" (shard {shard})"
    print(
        f"{len(runs)} run{'s' if len(runs) > 1 else ''} of {source.place}{part}, {len(entries)} model"
        f"{'s averaged' if len(entries) > 1 else ''} ({', '.join(e.name for e in entries)}) by {backend} ({reason}) in "
        f"{precision}, into {out}"
    )
    if len(places) > 1:
        print(f"{len(places)} processes share the runs: {', '.join(place.name for place in places)}")
    write_text(out / FILE_NAME, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    for task in tasks:
        if task.run.name in done:
            print(f"{task.label}: is done already")
    job = Job(
        folder=folder,
        entries=entries,
        backend=backend,
        types=types,
        out=out,
        reading=reading,
        mask=args.mask,
        tta=args.tta,
        save_heatmaps=args.save_heatmaps,
        page=None if args.no_report else page,
    )
    failed, written = _pick([t for t in tasks if t.run.name not in done], job, places)
    finished = [r.name for r in runs if r.name not in failed]
    if shard is not None:
        print(
            f"shard {shard}: {len(finished)} of {len(runs)} runs are done, in {out / 'ExperimentRuns'}; when all "
            "shards are, the same command without --shard writes the tables"
        )
    elif finished:
        found = read_copick_folder(out, types, finished)
        write_submission(list(found.values()), out / "submission.csv")
        exports = write_exports(args, out, found, frames)
        if source.project is not None:
            files = write_project_picks(source.project, found, force=args.force)
            exports.append(f"  {source.project.overlay}  (the copick project: {len(files)} files of user jaxcryo)")
        _summary(found, types, {r: truth[r] for r in finished if r in truth})
        print("wrote:")
        print(f"  {out / 'submission.csv'}  (Kaggle's table)")
        print(f"  {out / 'ExperimentRuns'}  (copick picks with scores, one folder a run)")
        print("".join(f"{line}\n" for line in exports), end="")
        for picture in written:
            print(f"  {picture}  (slices with the picks)")
        for first in [] if args.no_report else list_pages(out, found, truth, types):
            print(f"  {first}  (open it in a browser: slices, heatmaps, and thresholds to try)")
        if view is not None:
            view((reading.open(r.volume_path, r.name), found[r.name]) for r in runs if r.name in found)
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed:", file=sys.stderr)
        for name, message in failed.items():
            print(f"  {name}: {message}", file=sys.stderr)
        return 1
    return 0


def _pick(tasks: Sequence[RunTask], job: Job, places: Sequence[Place]) -> tuple[dict[str, str], list[pathlib.Path]]:
    """Does the runs; gives why runs failed, in the order of the runs, and the pictures of the others."""
    failed: dict[str, str] = {}
    written: list[pathlib.Path] = []
    with WindowBars([task.label for task in tasks]) as bars:
        for outcome in _outcomes(tasks, job, places, bars):
            task = tasks[outcome.index]
            bars.close(outcome.index)
            if outcome.result is None:
                failed[task.run.name] = outcome.failure
                tqdm.write(f"{task.label}: failed: {outcome.failure}", file=sys.stderr)
            else:
                written.append(outcome.result.picture)
                tqdm.write(f"{task.label}: {outcome.result.count} picks in {outcome.result.seconds:.1f} s")
    return {t.run.name: failed[t.run.name] for t in tasks if t.run.name in failed}, sorted(written)


def _outcomes(
    tasks: Sequence[RunTask], job: Job, places: Sequence[Place], bars: WindowBars
) -> Iterator[Outcome[PickedRun]]:
    if not tasks:
        return iter(())
    open_work = functools.partial(open_picker, job)
    if len(places) == 1:
        return in_turn(tasks, open_work, on_advance=bars.advance)
    sizes = [_size(task.run, job.reading) for task in tasks]
    return side_by_side(tasks, open_work, places, sizes=sizes, on_advance=bars.advance, on_loss=_report_loss)


def _size(run: Run, reading: Reading) -> float:
    """Voxels of a run; 0 where that is not to be known, which its process will say."""
    try:
        shape_zyx = reading.open(run.volume_path, run.name).grid.shape_zyx
    except InputError:
        return 0
    return math.prod(shape_zyx)


def _report_loss(place: Place, reason: str) -> None:
    tqdm.write(f"{place.name}: {reason}; the runs that are left go to the others", file=sys.stderr)


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


def _parser(prog: str) -> argparse.ArgumentParser:
    p = parser("Find particles in tomograms.", EXAMPLES, prog)
    p.add_argument(
        "--engines", metavar="DIR", help="folder that 'python -m convert onnx' wrote; all in it are averaged"
    )
    add_source_options(p, "dataset, folder of tomograms, or one tomogram")
    p.add_argument("--out", metavar="PICKS", help="folder for the results (default: picks, or demo with --demo)")
    p.add_argument("--runs", nargs="+", metavar="NAME", help="these runs only")
    p.add_argument("--backend", default="auto", choices=backend_names(), help="what runs the networks")
    p.add_argument(
        "--precision", default="auto", choices=PRECISIONS,
        help="that the networks compute in (auto: bfloat16 on CPUs that have it, where 'python -m convert check "
        "--bfloat16' found it to be as good; else the engines' own)",
    )  # fmt: skip
    p.add_argument(
        "--processes", type=int, metavar="N",
        help="that share the runs, each on its own GPU or on its part of the cores (default: one for each GPU, else 1)",
    )  # fmt: skip
    add_extent_options(p)
    p.add_argument(
        "--mask", metavar="VOLUME", help="look only where it is above 0; or a folder with one named as each run"
    )
    p.add_argument("--thresholds", metavar="FILE", help='instead of the engines\' own, as {"ribosome": 0.5, ...}')
    add_export_options(p)
    p.add_argument("--no-report", action="store_true", help="leave out the pages in PICKS/reports")
    p.add_argument("--view", choices=("napari",), help="show volumes and picks when all is done")
    p.add_argument("--force", action="store_true", help="replace results that are there")
    p.add_argument("--demo", action="store_true", help="try the program on a phantom, with the engines that come along")
    return p


def _x(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
