"""Tasks for the tests of workers, importable in the processes that they start.

Tasks are texts that say what becomes of them; results are texts.
"""

from __future__ import annotations

import os
import pathlib
import signal
import time

from jaxcryo.errors import InputError


def open_work():
    return work


def open_again():
    """Looks up what opens the work when it is called, so that a test may count it."""
    return open_work()


def work(task: str, listener) -> str:
    listener.note(f"began {task}")
    listener.advance(2, 2)
    kind, _, rest = task.partition(" ")
    if kind == "bad":
        raise InputError("cannot be used")
    if kind == "fault":
        raise ZeroDivisionError("by zero")
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        os._exit(3)
    if kind == "die-once":
        path = pathlib.Path(rest)
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if kind == "wait":
        while not pathlib.Path(rest).exists():
            time.sleep(0.01)
            listener.advance(2, 2)
    if kind == "sleep":
        while not pathlib.Path(rest).exists():
            time.sleep(0.01)
    if kind == "touch":
        pathlib.Path(rest).touch()
    if kind == "where":
        return f"{os.environ.get('WHERE')} {sorted(os.sched_getaffinity(0))}"
    return f"{task} done"


def refuse():
    raise InputError("no engine fits")


def refuse_on_one():
    """Only the worker called one cannot take part."""
    from distributed import get_worker

    if get_worker().name == "one":
        refuse()
    return work
