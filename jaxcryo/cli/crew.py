"""Who picks the runs of an inference: this process, workers of this machine, or those of a cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import importlib.util
import math
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxcryo.cli.infer import ModelOptions
from jaxcryo.cli.picker import PickedRun, open_picker, open_picker_elsewhere
from jaxcryo.cli.plan import How, Plan, choose_how
from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.progress import Progress
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.workers import Outcome, Place, in_turn
from jaxcryo.tomogram.volumes import Reading

if TYPE_CHECKING:
    from distributed import Client

_OPENED_AT_ONCE = 16
"""Tomograms whose sizes are asked for: on a server that takes long."""


def outcomes_of(
    plan: Plan, client: Client | None, on_advance: Callable[[int, int, int], None]
) -> Iterator[Outcome[PickedRun]]:
    """Picks the runs that are to do, on the workers of a client or else in this process."""
    if client is None:
        return in_turn(plan.tasks, functools.partial(open_picker, plan.job), on_advance=on_advance, on_note=_say)
    from jaxcryo.runtime.sharing import LOCAL, Patience, shared_out  # Dask takes two seconds to import

    return shared_out(
        client,
        plan.tasks,
        functools.partial(open_picker_elsewhere, plan.job),
        sizes=_sizes([task.run for task in plan.tasks], plan.job.reading),
        on_advance=on_advance,
        on_note=_say,
        patience=LOCAL if plan.places else Patience(),
    )


@contextlib.contextmanager
def cluster_of(scheduler: str) -> Iterator[Client]:
    """The cluster that `--scheduler` names, and a line on it."""
    from jaxcryo.runtime.cluster import existing_cluster

    with existing_cluster(scheduler) as client:
        count = len(client.nthreads())
        print(f"the scheduler has {count} worker{'' if count == 1 else 's'} now{_dashboard(client)}")
        yield client


@contextlib.contextmanager
def workers_on(places: Sequence[Place]) -> Iterator[Client]:
    """Workers of this machine, and a line on them."""
    from jaxcryo.runtime.cluster import local_cluster

    with local_cluster(places) as client:
        names = ", ".join(place.name for place in places)
        print(f"{len(places)} workers share the runs: {names}{_dashboard(client)}")
        yield client


def _dashboard(client: Client) -> str:
    """Where Dask shows its work; nothing without Bokeh, which it shows it with."""
    return f"; dashboard: {client.dashboard_link}" if importlib.util.find_spec("bokeh") is not None else ""


def choose_there(client: Client, options: ModelOptions, folder: pathlib.Path, entries: tuple[ModelEntry, ...]) -> How:
    """As `choose_how`, on the first worker of a cluster: what is at hand here says nothing of those.

    Raises:
        InputError: as `choose_how`; or that worker has no jaxcryo, or another one.
    """
    if not client.nthreads():
        print("waiting for a first worker, which chooses how the models are run")
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


def _sizes(runs: Sequence[Run], reading: Reading) -> list[float]:
    """Voxels of the runs; 0 where that is not to be known, which its worker will say."""

    def size(run: Run) -> float:
        try:
            return math.prod(reading.open(run.volume_path, run.name).grid.shape_zyx)
        except InputError:
            return 0

    with concurrent.futures.ThreadPoolExecutor(_OPENED_AT_ONCE) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the workers say the same
        return list(pool.map(size, runs))


def _say(sentence: str) -> None:
    Progress.write(f"note: {sentence}", file=sys.stderr)
