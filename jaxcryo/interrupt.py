"""Stopping at once when asked to, even within a native call.

Python's own answer to Ctrl-C is an exception in the main thread once a native call has returned, and then an orderly
end. Runtimes with threads of their own abort in it. Files are written beside their place and renamed, so nothing is
lost by stopping abruptly, which is what happens here: the signal wakes a thread that removes half-written files and
ends the worker processes and this process.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from jaxcryo.files import remove_unfinished

_PATIENCE_SECONDS = 2.0
_taken = 0
"""Interrupts that another handler will answer."""
_starting = threading.Lock()
_before_workers: list[Callable[[], object]] = []


@contextlib.contextmanager
def ends_at_once(number: signal.Signals = signal.SIGINT, *, code: int = 130, message: str = "") -> Iterator[None]:
    """Within it the signal ends the process with an exit code, after a line on standard error.

    Does nothing outside of the main thread, which alone hears signals, and where the signal is ignored.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(number) in (signal.SIG_IGN, None):
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    handler = signal.signal(number, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, number, code, message), daemon=True, name="signals")
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(number, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)


@contextlib.contextmanager
def first_one_is_ours() -> Iterator[None]:
    """Within it the first Ctrl-C is left to a handler of the caller; a second one ends the process."""
    global _taken
    _taken = 1
    try:
        yield
    finally:
        _taken = 0


@contextlib.contextmanager
def starts_a_process() -> Iterator[None]:
    """Wraps the start of a process; stopping waits for it, since a child with half of its task prints a traceback."""
    with _starting:
        yield


@contextlib.contextmanager
def an_end_begins_with(act: Callable[[], object]) -> Iterator[None]:
    """Within it an end calls this before it ends the worker processes; it has two seconds."""
    _before_workers.append(act)
    try:
        yield
    finally:
        _before_workers.remove(act)


def _watch(reader: int, number: int, code: int, message: str) -> None:
    global _taken
    while data := os.read(reader, 1):
        if data[0] != number:
            continue
        if _taken and number == signal.SIGINT:
            _taken -= 1
            continue
        _end(code, message)


def _end(code: int, message: str) -> None:
    try:
        _try(_flush, 0.5)
        if message:
            os.write(2, f"{chr(10) if os.isatty(2) else ''}{message}\n".encode())
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):  # the main thread may still have something to say, of workers that it lost
            os.dup2(null, descriptor)
        _starting.acquire(timeout=_PATIENCE_SECONDS)  # for good: the main thread starts no more
        for act in _before_workers:
            _try(act, _PATIENCE_SECONDS)
        _end_workers([worker.pid for worker in multiprocessing.active_children() if worker.pid is not None])
        remove_unfinished()
        # Locks that modules made on import; Python reports each one that a process leaves behind.
        finalize = functools.partial(multiprocessing.util._run_finalizers, 0)  # type: ignore[attr-defined]
        _try(finalize, _PATIENCE_SECONDS)
    finally:
        os._exit(code)


def _end_workers(pids: list[int]) -> None:
    """By their ids: the main thread may be closing them too."""
    for number, seconds in ((signal.SIGTERM, _PATIENCE_SECONDS), (signal.SIGKILL, 0.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while (pids := [pid for pid in pids if _is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:  # waited for already
        return False


def _try(act: Callable[[], object], seconds: float) -> None:
    """For a moment: a lock may be held by what was interrupted."""
    trying = threading.Thread(target=act, daemon=True)
    trying.start()
    trying.join(seconds)


def _flush() -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
