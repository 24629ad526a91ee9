"""An inference: the runs of a dataset or project, their picks, tables, pages and scores."""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxcryo.calling import command
from jaxcryo.cli.crew import choose_there, cluster_of, outcomes_of, settle_runs, workers_on
from jaxcryo.cli.deciding import decide_runs, said_of, write_decision
from jaxcryo.cli.exports import write_exports
from jaxcryo.cli.infer import InferOptions
from jaxcryo.cli.pages import list_pages
from jaxcryo.cli.parts import remove_parts
from jaxcryo.cli.plan import Plan, choose_how, planned, with_demo_data
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.metric import score
from jaxcryo.picking.thresholds import decide
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.picks.folder import PicksFolder
from jaxcryo.picks.formats.tables import write_submission
from jaxcryo.picks.overview import overview_of
from jaxcryo.progress import Progress, RunsBar
from jaxcryo.project.copick import write_project_picks
from jaxcryo.report import count_table, draw_overview, score_table

if TYPE_CHECKING:
    from distributed import Client


def infer(options: InferOptions) -> int:
    """Picks all runs and writes what the options ask for; 1 where runs failed."""
    if options.demo:
        options = with_demo_data(options)
    running = options.running
    if running.scheduler is not None and running.workers is not None:
        raise InputError("--scheduler and --workers were both given; a scheduler has its own workers")
    with contextlib.ExitStack() as stack:
        client = None if running.scheduler is None else stack.enter_context(cluster_of(running.scheduler))
        plan = planned(options, choose=choose_how if client is None else functools.partial(choose_there, client))
        if not plan.runs:
            print(f"{plan.source.place} has {len(plan.source.runs)} runs: nothing is left for shard {plan.shard}")
            return 0
        _announce(plan)
        if options.force:
            for task in plan.tasks:
                remove_parts(plan.job.out, task.run.name)
        if len(plan.places) > 1:
            client = stack.enter_context(workers_on(plan.places))
        failed, pictures = _picked(plan, client)
        finished = [r.name for r in plan.runs if r.name not in failed]
        if plan.shard is None and finished:
            types, found = _decided(options, plan, finished, client)
    if plan.shard is not None:
        print(
            f"shard {plan.shard}: {len(finished)} of {len(plan.runs)} runs are done, in "
            f"{plan.job.out / 'ExperimentRuns'}; when all shards are, the same command without --shard chooses "
            "thresholds over all runs and writes the tables"
        )
    elif finished:
        _finish(options, plan, types, found, sorted(pictures))
    if options.demo:
        print(f"next, a dataset to train on:\n  {command('phantom data/phantom --runs 3')}")
    if failed:
        print(f"{len(failed)} of {len(plan.runs)} runs failed:", file=sys.stderr)
        for run in plan.runs:
            if run.name in failed:
                print(f"  {run.name}: {failed[run.name]}", file=sys.stderr)
        return 1
    return 0


def _announce(plan: Plan) -> None:
    part = "" if plan.shard is None else f" (shard {plan.shard})"
    count = f"{len(plan.runs)} run{'s' if len(plan.runs) > 1 else ''}"
    print(f"{count} of {plan.source.place}{part}, {plan.described}, into {plan.job.out}")
    PicksFolder(path=plan.job.out).write_settings(plan.settings)
    to_do = {task.run.name for task in plan.tasks}
    for number, run in enumerate(plan.runs, 1):
        if run.name not in to_do:
            print(f"[{number}/{len(plan.runs)}] {run.name}: already done, skipping")
            remove_parts(plan.job.out, run.name)  # of a command that was ended in between


def _picked(plan: Plan, client: Client | None) -> tuple[dict[str, str], list[pathlib.Path]]:
    """Picks the remaining runs; returns the failures by run, and the pictures of the others."""
    failed: dict[str, str] = {}
    pictures: list[pathlib.Path] = []
    if not plan.tasks:
        return failed, pictures
    labels = [task.label for task in plan.tasks]
    with RunsBar(labels, unit="window" if plan.tasks[0].ranges == 1 else "part") as bar:
        for outcome in outcomes_of(plan, client, bar.advance):
            task = plan.tasks[outcome.index]
            bar.finish(outcome.index)
            if outcome.result is None:
                failed[task.run.name] = outcome.failure
                Progress.write(f"{task.label}: failed: {outcome.failure}", file=sys.stderr)
            else:
                pictures.append(outcome.result.picture)
                at = "" if plan.calibration is None else " at the models' own thresholds"
                Progress.write(f"{task.label}: {outcome.result.count} picks{at} in {outcome.result.seconds:.1f} s")
    return failed, pictures


def _finish(
    options: InferOptions,
    plan: Plan,
    types: tuple[ParticleType, ...],
    found: dict[str, Picks],
    pictures: Sequence[pathlib.Path],
) -> None:
    """Writes tables, exports and the list of pages for the finished runs, prints scores and what was written."""
    out = plan.job.out
    write_submission(list(found.values()), out / "submission.csv")
    exports = write_exports(options, out, found, plan.geometry)
    if plan.source.project is not None:
        files = write_project_picks(plan.source.project, found, force=options.force)
        exports.append(f"  {plan.source.project.overlay}  (the copick project: {len(files)} files of user jaxcryo)")
    _summary(found, types, {r: plan.truth[r] for r in found if r in plan.truth})
    overview = overview_of(found, types)
    for outlier in overview.outliers:
        print(f"note: {outlier}", file=sys.stderr)
    write_text(out / "overview.json", json.dumps(overview.to_plain(), indent=1, ensure_ascii=False) + "\n")
    draw_overview(out / "overview.png", overview)
    print("wrote:")
    print(f"  {out / 'submission.csv'}  (Kaggle's table)")
    print(f"  {out / 'overview.png'}  (picks of each type in each tomogram; overview.json has the numbers)")
    print(f"  {out / 'ExperimentRuns'}  (copick picks with scores, one folder per run)")
    print("".join(f"{line}\n" for line in exports), end="")
    for picture in pictures:
        print(f"  {picture}  (slices with the picks)")
    for first in list_pages(out, found, plan.truth, types) if options.output.report else []:
        print(f"  {first}  (open it in a browser: slices, heatmaps, and thresholds to try)")
    if plan.view is not None:
        plan.view((plan.job.reading.open(r.volume_path, r.name), found[r.name]) for r in plan.runs if r.name in found)


def _decided(
    options: InferOptions, plan: Plan, finished: list[str], client: Client | None
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
        print("note: candidates of some runs are missing; all runs keep the models' own thresholds", file=sys.stderr)
        return types, read_copick_folder(out, types, finished)
    decision, found = decided
    with RunsBar(finished, doing="thresholds", unit="run") as bar:
        settle_runs(plan, client, decision, finished, bar.finish)
    write_decision(out, decision)
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
        print(f"\npicks of {len(rest)} run{'' if len(rest) == 1 else 's'}:")
        print(count_table(types, counts.tolist()))
