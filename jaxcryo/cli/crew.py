"""Where the runs of an inference are picked: in this process, on workers of this machine, or on those of a cluster."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxcryo.cli.infer import ModelOptions
from jaxcryo.cli.parts import remove_parts
from jaxcryo.cli.picker import PickedRun, RunTask, open_picker, open_picker_elsewhere
from jaxcryo.cli.plan import How, Plan, choose_how
from jaxcryo.cli.settling import Settling, open_settling
from jaxcryo.cli.steps import Step, advance_of_runs, outcomes_of_runs, steps_of
from jaxcryo.errors import InputError
from jaxcryo.picking.thresholds import Decision
from jaxcryo.progress import Progress
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.workers import Outcome, Place, Result, Work, in_turn
from jaxcryo.stores.address import Address, Location
from jaxcryo.tomogram.ome_zarr import level_shape

if TYPE_CHECKING:
    from distributed import Client


def outcomes_of(
    plan: Plan, client: Client | None, on_advance: Callable[[int, int, int], None]
) -> Iterator[Outcome[PickedRun]]:
    """Picks the remaining runs, on the workers of a client or else in this process."""
    steps = steps_of(plan.tasks)
    outcomes = _done(
        plan,
        client,
        steps,
        functools.partial(open_picker if client is None else open_picker_elsewhere, plan.job),
        advance_of_runs(steps, on_advance),
    )
    for outcome in outcomes_of_runs(steps, outcomes):
        if outcome.result is not None:
            remove_parts(plan.job.out, plan.tasks[outcome.index].run.name)
        yield outcome


def settle_runs(
    plan: Plan, client: Client | None, decision: Decision, runs: Sequence[str], on_settled: Callable[[int], object]
) -> None:
    """Writes what a decision changes of these runs, where they are picked; `on_settled` is told each one's place.

    Raises:
        InputError: runs cannot be settled; all others are then.
    """
    run_of = {run.name: run for run in plan.runs}
    tasks = [RunTask(run=run_of[name], label=name, truth=plan.truth.get(name)) for name in runs]
    steps = [Step(task=task, run=place) for place, task in enumerate(tasks)]
    settling = Settling(out=plan.job.out, reading=plan.job.reading, decision=decision)
    open_work = functools.partial(open_settling, settling)
    failures = []
    for outcome in _done(plan, client, steps, open_work, lambda index, done, total: None):
        if outcome.failure:
            failures.append(f"{runs[outcome.index]}: {outcome.failure}")
        else:
            on_settled(outcome.index)
    if failures:
        raise InputError(
            f"{'; '.join(failures)}. The picks of {len(failures)} of {len(runs)} runs are still at the models' own "
            "thresholds; give the same command again"
        )


def _done(
    plan: Plan,
    client: Client | None,
    steps: Sequence[Step],
    open_work: Callable[[], Work[RunTask, Result]],
    on_advance: Callable[[int, int, int], None],
) -> Iterator[Outcome[Result]]:
    """Does the steps on the workers of a client or else in this process."""
    tasks = [step.task for step in steps]
    if client is None:
        return in_turn(tasks, open_work, on_advance=on_advance, on_note=_say)
    from jaxcryo.runtime.sharing import LOCAL, Patience, shared_out  # Dask takes two seconds to import

    return shared_out(
        client,
        tasks,
        open_work,
        sizes=[step.share * _size(step.task.run.volume_path, plan.job.reading.level) for step in steps],
        after={place: step.after for place, step in enumerate(steps)},
        on_advance=on_advance,
        on_note=_say,
        patience=LOCAL if plan.places else Patience(),
    )


@contextlib.contextmanager
def cluster_of(scheduler: str) -> Iterator[Client]:
    """The cluster that `--scheduler` names, and a line about it."""
    from jaxcryo.runtime.cluster import existing_cluster

    with existing_cluster(scheduler) as client:
        count = len(client.nthreads())
        print(f"the scheduler has {count} worker{'' if count == 1 else 's'} now{_dashboard(client)}")
        yield client


@contextlib.contextmanager
def workers_on(places: Sequence[Place]) -> Iterator[Client]:
    """Workers of this machine, and a line about them."""
    from jaxcryo.runtime.cluster import local_cluster

    with local_cluster(places) as client:
        names = ", ".join(place.name for place in places)
        print(f"{len(places)} workers share the runs: {names}{_dashboard(client)}")
        yield client


def _dashboard(client: Client) -> str:
    """The address of Dask's dashboard; empty without Bokeh, which draws it."""
    return f"; dashboard: {client.dashboard_link}" if importlib.util.find_spec("bokeh") is not None else ""


def choose_there(client: Client, options: ModelOptions, folder: pathlib.Path, entries: tuple[ModelEntry, ...]) -> How:
    """As `choose_how`, on the first worker of a cluster, whose hardware need not be this machine's.

    Raises:
        InputError: as `choose_how`; or that worker lacks jaxcryo, or has another version.
    """
    if not client.nthreads():
        print("waiting for a first worker, on which to choose how the models are run")
        client.wait_for_workers(1)
    try:
        how: How = client.submit(choose_how, options, folder, entries, pure=False).result()
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"a worker could not choose how the models are run ({type(error).__name__}: {error}); install the same "
            "version of jaxcryo everywhere"
        ) from error
    return how


def _size(place: Location, level: int) -> float:
    """Voxels, or bytes of a file: a quick guess at which run takes longest; 0 where there is none.

    Reads no chunk and reports no fault: the worker that reads the tomogram does.
    """
    if isinstance(place, Address):
        return 0
    try:
        return math.prod(level_shape(place, level)) if place.is_dir() else place.stat().st_size
    except Exception:  # whatever strange files lead to
        return 0


def _say(sentence: str) -> None:
    Progress.write(f"note: {sentence}", file=sys.stderr)
