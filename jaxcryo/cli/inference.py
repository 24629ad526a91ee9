"""An inference: the runs of a dataset or project, their picks, tables, pages and scores."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from jaxcryo.calibration import Calibration, mean_calibration
from jaxcryo.calling import command
from jaxcryo.cli.deciding import decide_runs, said_of
from jaxcryo.cli.exports import check_foreign, export_geometries, write_exports
from jaxcryo.cli.geometry import say
from jaxcryo.cli.infer import InferOptions, PickingOptions
from jaxcryo.cli.inputs import Source, check_truth, find_source, known_picks, reading_of
from jaxcryo.cli.napari_view import View, napari_view
from jaxcryo.cli.pages import list_pages, page_notes
from jaxcryo.cli.picker import Job, PickedRun, RunTask, open_picker
from jaxcryo.cli.settings import FILE_NAME, runs_done, settings_of
from jaxcryo.cli.shard import Shard
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.metric import score
from jaxcryo.phantom import DrawConfig, write_dataset
from jaxcryo.picking.effort import Effort, stride_of
from jaxcryo.picking.preprocess import engine_spacing
from jaxcryo.picking.thresholds import decide
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.picks.formats import Geometries
from jaxcryo.picks.formats.tables import write_submission
from jaxcryo.picks.thresholds import read_thresholds, with_thresholds
from jaxcryo.progress import Progress
from jaxcryo.project.copick import check_no_own_files, write_project_picks
from jaxcryo.project.mask import check_mask
from jaxcryo.report import count_table, draw_picks, score_table
from jaxcryo.runtime.backends import choose_backend, choose_precision, ensemble_types
from jaxcryo.runtime.cuda import jax_gpus, share_memory
from jaxcryo.runtime.manifest import ModelEntry, read_manifest
from jaxcryo.runtime.workers import Outcome, Place, in_turn, plan_places, side_by_side
from jaxcryo.tomogram.volumes import Reading

DEMO_ENGINES = pathlib.Path(__file__).parents[1] / "demo"
DEMO_SEED = 20260
DEMO_SHAPE_ZYX = (128, 400, 400)
DEMO_HARSHNESS = 1.3
"""By how much less signal the demo's phantom has than those of the training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that is known of an inference before its first voxel is read."""

    source: Source
    runs: list[Run]
    shard: Shard | None
    tasks: list[RunTask]
    """The runs that are still to do."""
    truth: dict[str, Picks]
    job: Job
    settings: Mapping[str, Any]
    places: tuple[Place, ...]
    geometry: Geometries
    view: View | None
    described: str
    """The models and what runs them, for people."""
    calibration: Calibration | None
    given: Mapping[str, float]
    """Thresholds that were asked for."""


def infer(options: InferOptions) -> int:
    """Picks all runs and writes what the options ask for; 1 where runs failed."""
    if options.demo:
        options = _with_demo_data(options)
    plan = _planned(options)
    if not plan.runs:
        print(f"{plan.source.place} has {len(plan.source.runs)} runs: nothing is left for shard {plan.shard}")
        return 0
    _announce(plan)
    failed: dict[str, str] = {}
    pictures: list[pathlib.Path] = []
    with WindowBars([task.label for task in plan.tasks]) as bars:
        for outcome in _outcomes(plan, bars):
            task = plan.tasks[outcome.index]
            bars.close(outcome.index)
            if outcome.result is None:
                failed[task.run.name] = outcome.failure
                Progress.write(f"{task.label}: failed: {outcome.failure}", file=sys.stderr)
            else:
                pictures.append(outcome.result.picture)
                at = "" if plan.calibration is None else " at the models' own thresholds"
                Progress.write(f"{task.label}: {outcome.result.count} picks{at} in {outcome.result.seconds:.1f} s")
    finished = [r.name for r in plan.runs if r.name not in failed]
    if plan.shard is not None:
        print(
            f"shard {plan.shard}: {len(finished)} of {len(plan.runs)} runs are done, in "
            f"{plan.job.out / 'ExperimentRuns'}; when all shards are, the same command without --shard chooses "
            "thresholds over all runs and writes the tables"
        )
    elif finished:
        _finish(options, plan, finished, sorted(pictures))
    if options.demo:
        print(f"next, a dataset to train on:\n  {command('phantom data/phantom --runs 3')}")
    if failed:
        print(f"{len(failed)} of {len(plan.runs)} runs failed:", file=sys.stderr)
        for run in plan.runs:
            if run.name in failed:
                print(f"  {run.name}: {failed[run.name]}", file=sys.stderr)
        return 1
    return 0


def _with_demo_data(options: InferOptions) -> InferOptions:
    """Makes the demo's tomogram; the options to pick it."""
    out = options.out or pathlib.Path("demo")
    data = out / "data"
    config = DrawConfig(shape_zyx=DEMO_SHAPE_ZYX, harshness=DEMO_HARSHNESS, center_share=1.0)
    size = "×".join(map(str, config.shape_zyx))
    print(f"1. Making a phantom tomogram of {size} voxels that no training has seen, in {data}")
    if out.exists() and not (out / FILE_NAME).exists() and any(out.iterdir()):
        raise InputError(f"{out} already exists and is not an earlier demo; choose another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    write_dataset(data, config, seed=DEMO_SEED, runs=0, test_runs=1, progress=True)
    print("2. Finding the particles")
    engines = options.engines or DEMO_ENGINES
    return dataclasses.replace(options, data=str(data), copick=None, out=out, engines=engines, runs=())


def _planned(options: InferOptions) -> _Plan:
    """Reads and checks everything but the tomograms; nothing has been written where it raises InputError."""
    folder, out = options.engines, options.out or pathlib.Path("picks")
    if folder is None:
        raise InputError(
            f"no models were given; pass --engines DIR with a folder that '{command('convert onnx')}' wrote, or --demo"
        )
    entries = tuple(_as_asked(e, options.effort, options.picking) for e in read_manifest(folder))
    check_truth(options.truth, options.copick)
    near_angstrom = engine_spacing(entries)
    source = find_source(options.data, options.copick, options.input, names=options.runs, near_angstrom=near_angstrom)
    shard = None if options.running.shard is None else Shard.parse(options.running.shard)
    runs = source.runs if shard is None else shard.of(source.runs)
    types = ensemble_types(entries)
    given = {} if options.picking.thresholds is None else read_thresholds(options.picking.thresholds)
    types = with_thresholds(types, given)
    view = napari_view() if options.output.view == "napari" else None
    backend, reason = choose_backend(options.model.backend, folder, entries)
    entries, precision = choose_precision(options.model.precision, backend, entries)
    reading = reading_of(options.input)
    settings = settings_of(entries, types, reading, tta=options.picking.tta)
    if options.mask is not None:
        check_mask(options.mask)
        settings["mask"] = str(pathlib.Path(options.mask).absolute())
    geometry = export_geometries(options, out, runs)
    check_foreign(options, out)
    done = runs_done(out, settings, runs, force=options.force, note=say)
    if source.project is not None and not options.force:
        check_no_own_files(source.project, [r.name for r in runs if r.name not in done])
    if backend == "tensorrt":
        share_memory()
    truth = known_picks(source, types, options.truth)
    gpus = () if backend == "openvino" else jax_gpus()
    page = page_notes(entries, backend=backend, reason=reason, settings=settings, engines=str(folder), out=str(out))
    return _Plan(
        source=source,
        runs=runs,
        shard=shard,
        tasks=[
            RunTask(run=run, label=f"[{number}/{len(runs)}] {run.name}", truth=truth.get(run.name))
            for number, run in enumerate(runs, 1)
            if run.name not in done
        ],
        truth=truth,
        job=Job(
            folder=folder,
            entries=entries,
            backend=backend,
            types=types,
            out=out,
            reading=reading,
            mask=options.mask,
            tta=options.picking.tta,
            save_heatmaps=options.output.save_heatmaps,
            page=page if options.output.report else None,
        ),
        settings=settings,
        places=plan_places(options.running.processes, gpus, len(runs) - len(done)),
        geometry=geometry,
        view=view,
        described=f"{len(entries)} model{'s averaged' if len(entries) > 1 else ''} "
        f"({', '.join(e.name for e in entries)}) by {backend} ({reason}) in {precision}",
        calibration=mean_calibration([e.calibration for e in entries]),
        given=given,
    )


def _as_asked(entry: ModelEntry, effort: Effort, picking: PickingOptions) -> ModelEntry:
    """The model with what the options say instead of its own settings."""
    if picking.refine and picking.no_refine:
        raise InputError("--refine and --no-refine were both given; choose one")
    if picking.merge_radius is not None and not 0 <= picking.merge_radius <= 2:
        raise InputError(f"--merge-radius is {picking.merge_radius:g}; expected a fraction of the radius from 0 to 2")
    own = entry.inference
    inference = dataclasses.replace(
        own,
        stride_zyx=stride_of(effort, entry.patch_zyx, entry.stride_zyx),
        refine=picking.refine if picking.refine or picking.no_refine else own.refine,
        merge_radius=own.merge_radius if picking.merge_radius is None else picking.merge_radius,
    )
    return dataclasses.replace(entry, inference=inference)


def _announce(plan: _Plan) -> None:
    part = "" if plan.shard is None else f" (shard {plan.shard})"
    count = f"{len(plan.runs)} run{'s' if len(plan.runs) > 1 else ''}"
    print(f"{count} of {plan.source.place}{part}, {plan.described}, into {plan.job.out}")
    if len(plan.places) > 1:
        print(f"{len(plan.places)} processes share the runs: {', '.join(place.name for place in plan.places)}")
    write_text(plan.job.out / FILE_NAME, json.dumps(plan.settings, indent=1, ensure_ascii=False) + "\n")
    to_do = {task.run.name for task in plan.tasks}
    for number, run in enumerate(plan.runs, 1):
        if run.name not in to_do:
            print(f"[{number}/{len(plan.runs)}] {run.name}: already done, skipping")


def _outcomes(plan: _Plan, bars: WindowBars) -> Iterator[Outcome[PickedRun]]:
    if not plan.tasks:
        return iter(())
    open_work = functools.partial(open_picker, plan.job)
    if len(plan.places) == 1:
        return in_turn(plan.tasks, open_work, on_advance=bars.advance)
    sizes = [_size(task.run, plan.job.reading) for task in plan.tasks]
    return side_by_side(plan.tasks, open_work, plan.places, sizes=sizes, on_advance=bars.advance, on_loss=_report_loss)


def _size(run: Run, reading: Reading) -> float:
    """Voxels of a run; 0 where that is not to be known, which its process will say."""
    try:
        shape_zyx = reading.open(run.volume_path, run.name).grid.shape_zyx
    except InputError:
        return 0
    return math.prod(shape_zyx)


def _report_loss(place: Place, reason: str) -> None:
    Progress.write(f"{place.name}: {reason}; the remaining runs go to the other processes", file=sys.stderr)


def _finish(options: InferOptions, plan: _Plan, finished: list[str], pictures: Sequence[pathlib.Path]) -> None:
    """Writes tables, exports and the list of pages for the finished runs, prints scores and what was written."""
    out = plan.job.out
    types, found = _decided(options, plan, finished)
    write_submission(list(found.values()), out / "submission.csv")
    exports = write_exports(options, out, found, plan.geometry)
    if plan.source.project is not None:
        files = write_project_picks(plan.source.project, found, force=options.force)
        exports.append(f"  {plan.source.project.overlay}  (the copick project: {len(files)} files of user jaxcryo)")
    _summary(found, types, {r: plan.truth[r] for r in finished if r in plan.truth})
    print("wrote:")
    print(f"  {out / 'submission.csv'}  (Kaggle's table)")
    print(f"  {out / 'ExperimentRuns'}  (copick picks with scores, one folder per run)")
    print("".join(f"{line}\n" for line in exports), end="")
    for picture in pictures:
        print(f"  {picture}  (slices with the picks)")
    for first in list_pages(out, found, plan.truth, types) if options.output.report else []:
        print(f"  {first}  (open it in a browser: slices, heatmaps, and thresholds to try)")
    if plan.view is not None:
        plan.view((plan.job.reading.open(r.volume_path, r.name), found[r.name]) for r in plan.runs if r.name in found)


def _decided(
    options: InferOptions, plan: _Plan, finished: list[str]
) -> tuple[tuple[ParticleType, ...], dict[str, Picks]]:
    """The picks of the finished runs at thresholds that fit them all, where the models are calibrated."""
    out, types = plan.job.out, plan.job.types
    if plan.calibration is None:
        if not options.demo:
            print(f"note: {decide([], types, None).sentence()}", file=sys.stderr)
        return types, read_copick_folder(out, types, finished)
    decided = decide_runs(
        out,
        finished,
        types,
        plan.calibration,
        aim=options.picking.aim,
        given=plan.given,
        one_type_per_place=options.picking.one_type_per_place,
    )
    if decided is None:
        print("note: candidates of some runs are missing; all keep the models' own thresholds", file=sys.stderr)
        return types, read_copick_folder(out, types, finished)
    decision, found = decided
    for run in plan.runs:
        if run.name in found:
            picture = out / "pictures" / f"{run.name}.png"
            draw_picks(
                picture, plan.job.reading.open(run.volume_path, run.name), found[run.name], plan.truth.get(run.name)
            )
    print("\n".join(said_of(decision, found)))
    return decision.types, found


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


class WindowBars(contextlib.AbstractContextManager["WindowBars"]):
    """A progress bar for each run at work, counted in windows; it appears with the run's first ones."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._bars: dict[int, Progress] = {}

    def advance(self, index: int, done: int, total: int) -> None:
        """Shows what is done of the run with this index."""
        if index not in self._bars:
            self._bars[index] = Progress(desc=self._labels[index], total=total, unit="window", mininterval=0.5)
        self._bars[index].update(done - self._bars[index].n)

    def close(self, index: int) -> None:
        """Leaves the run's bar as it is, if it has one."""
        if index in self._bars:
            self._bars.pop(index).close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for index in list(self._bars):
            self.close(index)
