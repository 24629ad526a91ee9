"""Dask clusters: one on this machine, with a worker for each GPU or share of the cores, or an existing one."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing.resource_tracker
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker, WorkerPlugin
from distributed.utils import silence_logging_cmgr

from jaxcryo.errors import InputError
from jaxcryo.interrupt import an_end_begins_with, ends_at_once, starts_a_process
from jaxcryo.runtime.workers import Place

CONNECT_SECONDS = 60.0
"""A scheduler, or the file that names it, may come so much later."""
_START_SECONDS = 600
"""For what the network does at once, on a machine that is busy with other things."""
_HERE = "127.0.0.1"
_SETTINGS = {
    "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS:g} s",
    "distributed.comm.timeouts.tcp": "10 minutes",
    "distributed.deploy.lost-worker-timeout": f"{_START_SECONDS} s",  # else a worker that restarts slowly is given up
    # Dask's own would give freed memory back at once and leave NumPy one thread.
    "distributed.nanny.pre-spawn-environ": {"DASK_LOGGING__DISTRIBUTED": "critical"},
}


@contextlib.contextmanager
def local_cluster(places: Sequence[Place]) -> Iterator[Client]:
    """A worker in each place, which is restarted if it dies.

    Raises:
        InputError: they do not start.
    """
    workers = {place.name: {"cls": Nanny, "options": _options(place)} for place in places}
    scheduler = {
        "cls": Scheduler,
        "options": {"host": _HERE, "dashboard_address": f"{_HERE}:0", "allowed_failures": math.inf},
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        with _interrupts_are_ours(), starts_a_process():
            try:
                cluster = SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL)
            except (OSError, RuntimeError) as error:
                raise InputError(f"the workers did not start ({error}); try --workers 1") from error
            stack.enter_context(cluster)
            stack.enter_context(an_end_begins_with(lambda: _stand_still(cluster)))
            client = Client(cluster, set_as_default=False)
        stack.callback(client.close)
        yield client


@contextlib.contextmanager
def existing_cluster(scheduler: str) -> Iterator[Client]:
    """The cluster of a scheduler, named by its address or by the file that it wrote.

    Raises:
        InputError: there is none, or it does not answer.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS))
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        try:
            client = Client(timeout=CONNECT_SECONDS, set_as_default=False, **_named(scheduler))
        except (OSError, ValueError) as error:
            raise InputError(
                f"--scheduler is {scheduler}, where none answers ({error}); expected the address that 'dask scheduler' "
                "printed, such as tcp://node01:8786, or the file of its --scheduler-file"
            ) from error
        stack.callback(client.close)
        yield client


class _AtPlace(WorkerPlugin):
    """Keeps a worker's threads on its cores, and lets it end at once and completely when it is told to.

    Threads that compute are started later, and inherit the cores.
    """

    def __init__(self, cores: frozenset[int]) -> None:
        self._cores = cores

    def setup(self, worker: Worker) -> None:
        if self._cores:
            os.sched_setaffinity(0, self._cores)
        self._ending = ends_at_once(signal.SIGTERM, code=128 + signal.SIGTERM)
        self._ending.__enter__()

    def teardown(self, worker: Worker) -> None:
        self._ending.__exit__(None, None, None)


def _stand_still(cluster: SpecCluster) -> None:
    """Answers nothing more: workers that end are not started anew, and what belongs to them is not cleared half."""
    still = threading.Event()

    def stand() -> None:
        still.set()
        time.sleep(_START_SECONDS)

    if cluster.loop is not None:
        cluster.loop.add_callback(stand)
        still.wait()


def _options(place: Place) -> dict[str, Any]:
    return {
        "host": _HERE,
        "nthreads": 1,
        "memory_limit": 0,  # a worker is as large as it is
        "env": dict(place.environment),
        "dashboard_address": f"{_HERE}:0",
        "plugins": (_AtPlace(place.cores),),
    }


def _named(scheduler: str) -> dict[str, str]:
    """A scheduler as `Client` takes it, once there is its file."""
    if "://" in scheduler or not (scheduler.endswith(".json") or pathlib.Path(scheduler).is_file()):
        return {"address": scheduler}
    deadline = time.monotonic() + CONNECT_SECONDS
    while not pathlib.Path(scheduler).exists():
        if time.monotonic() > deadline:
            raise OSError("no such file")
        time.sleep(0.2)
    return {"scheduler_file": scheduler}


@contextlib.contextmanager
def _interrupts_are_ours() -> Iterator[None]:
    """Ctrl-C is not for threads that are started meanwhile, nor for the processes that they start, now and later."""
    multiprocessing.resource_tracker.ensure_running()  # which would let them through, where it is started meanwhile
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
