"""What a worker of a Dask cluster does: it opens the work once, does the tasks it is sent, and reports progress."""

from __future__ import annotations

import dataclasses
import pickle
import platform
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic

from distributed import Status, Worker, get_worker

from jaxcryo import __version__
from jaxcryo.errors import InputError
from jaxcryo.runtime.opened import ModelError
from jaxcryo.runtime.workers import Listener, Result, Task, Work

_AT_WORK = (Status.running, Status.paused, Status.closing_gracefully)
_SECONDS_BETWEEN = 1.0
"""News of a task are sent no more often."""
_opened: weakref.WeakKeyDictionary[Worker, tuple[str, Work[Any, Any]]] = weakref.WeakKeyDictionary()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Terms(Generic[Task, Result]):
    """What is the same for all tasks that are shared out together."""

    topic: str
    """Of Dask's events that carry the news of these tasks; no others have it."""
    version: str
    """Of jaxcryo, for all who take part."""
    open_work: Callable[[], Work[Task, Result]]


class Unwanted(Exception):  # noqa: N818 - nothing is wrong
    """A task was taken from this worker; it leaves it, and writes nothing more."""


def greet(terms: Terms[Any, Any]) -> None:
    """Tells this worker's name and its machine's, and opens the work.

    Raises:
        InputError: this worker cannot take part, and why.
    """
    worker = get_worker()
    news = {"key": worker.get_current_task(), "name": str(worker.name), "machine": platform.node()}
    worker.log_event(terms.topic, news)
    _work_of(terms)


def serve(terms: Terms[Task, Any], task: Task) -> None:
    """Does a task. What came of it is told like the news before, so that it is known even if the worker ends then."""
    worker = get_worker()
    key = worker.get_current_task()
    work = _work_of(terms)
    said = 0.0

    def tell(**news: Any) -> None:
        if not _is_at(worker, key):
            raise Unwanted
        worker.log_event(terms.topic, {"key": key, **news})

    def advance(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SECONDS_BETWEEN or done == total:
            said = time.monotonic()
            tell(done=done, total=total)

    try:
        reply = (work(task, Listener(advance=advance, note=lambda sentence: tell(note=sentence))), "")
    except (InputError, ModelError) as error:
        reply = (None, str(error))
    tell(reply=pickle.dumps(reply))


def _work_of(terms: Terms[Task, Any]) -> Work[Task, Any]:
    worker = get_worker()
    topic, work = _opened.get(worker, ("", None))
    if work is None or topic != terms.topic:
        if terms.version != __version__:
            raise InputError(
                f"has jaxcryo {__version__}; expected {terms.version}: install the same version everywhere"
            )
        _opened.pop(worker, None)  # before the new models need the memory
        work = terms.open_work()
        _opened[worker] = terms.topic, work
    return work


def _is_at(worker: Worker, key: Any) -> bool:
    """Whether a task is still this worker's to do."""
    state = worker.state.tasks.get(key)
    return worker.status in _AT_WORK and state is not None and state.state == "executing"
