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
from jaxcryo.cli.picker import PickedRun, open_picker, open_picker_elsewhere
from jaxcryo.cli.plan import How, Plan, choose_how
from jaxcryo.cli.steps import advance_of_runs, outcomes_of_runs, steps_of
from jaxcryo.errors import InputError
from jaxcryo.progress import Progress
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.workers import Outcome, Place, in_turn
from jaxcryo.stores.address import Address, Location
from jaxcryo.tomogram.ome_zarr import level_shape

if TYPE_CHECKING:
    from distributed import Client


def outcomes_of(
    plan: Plan, client: Client | None, on_advance: Callable[[int, int, int], None]
) -> Iterator[Outcome[PickedRun]]:
    """Picks the remaining runs, on the workers of a client or else in this process."""
    steps = steps_of(plan.tasks)
    tasks = [step.task for step in steps]
    outcomes: Iterator[Outcome[PickedRun | None]]
    if client is None:
        open_here = functools.partial(open_picker, plan.job)
        outcomes = in_turn(tasks, open_here, on_advance=advance_of_runs(steps, on_advance), on_note=_say)
    else:
        from jaxcryo.runtime.sharing import LOCAL, Patience, shared_out  # Dask takes two seconds to import

        outcomes = shared_out(
            client,
            tasks,
            functools.partial(open_picker_elsewhere, plan.job),
            sizes=[step.share * _size(step.task.run.volume_path, plan.job.reading.level) for step in steps],
            after={place: step.after for place, step in enumerate(steps)},
            on_advance=advance_of_runs(steps, on_advance),
            on_note=_say,
            patience=LOCAL if plan.places else Patience(),
        )
    for outcome in outcomes_of_runs(steps, outcomes):
        if outcome.result is not None:
            remove_parts(plan.job.out, plan.tasks[outcome.index].run.name)
        yield outcome


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
