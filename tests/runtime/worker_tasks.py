"""Tasks for `test_workers.py`, importable in the processes that it starts."""

from __future__ import annotations

import os
import pathlib
import signal
import time

from jaxcryo.errors import InputError


def open_work():
    """Tasks are texts that say what becomes of them; results are texts."""

    def work(task: str, advance) -> str:
        advance(1, 2)
        if task == "bad":
            raise InputError("cannot be used")
        if task == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "exit":
            os._exit(3)
        if task.startswith("wait for "):
            while not pathlib.Path(task.removeprefix("wait for ")).exists():
                time.sleep(0.01)
        if task.startswith("touch "):
            pathlib.Path(task.removeprefix("touch ")).touch()
        if task == "where":
            return f"{os.environ.get('WHERE')} {sorted(os.sched_getaffinity(0))}"
        return f"{task} done"

    return work


def refuse():
    raise InputError("no engine fits")


def refuse_on_one():
    """Only the place called one is not able to."""
    if os.environ.get("WHERE") == "one":
        refuse()
    return open_work()
