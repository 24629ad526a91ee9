"""Tasks shared out among processes, so that one's death costs no more than the task it was at."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from jaxcryo.errors import InputError
from jaxcryo.interrupt import ends_at_once, starts_a_process
from jaxcryo.runtime.cuda import Gpu, gpu_environment
from jaxcryo.runtime.opened import ModelError

Task = TypeVar("Task")
Result = TypeVar("Result")

Advance = Callable[[int, int], None]
"""Called with what is done of a task and all there is."""
Work = Callable[[Task, Advance], Result]
"""Does one task; `InputError` and `ModelError` are failures of that task."""
_PATIENCE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where one process runs."""

    name: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: frozenset[int] = frozenset()
    """Empty leaves it all of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Result]):
    """What became of one task: a result, or why there is none."""

    index: int
    """Of the task."""
    result: Result | None = None
    failure: str = ""


def plan_places(processes: int | None, gpus: Sequence[Gpu], tasks: int) -> tuple[Place, ...]:
    """A place for each process, none more than tasks. By default one on each GPU, or a single one on the CPU.

    Processes on the CPU have their own cores each.

    Raises:
        InputError: there are fewer GPUs, or cores, than processes asked for.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    available = len(gpus) or len(cores) or os.cpu_count() or 1
    wanted = processes if processes is not None else max(len(gpus), 1)
    if not 1 <= wanted <= available:
        kind = "GPU" if gpus else "core"
        raise InputError(f"--processes is {wanted}; expected 1 to {available}, one for each {kind} at most")
    count = max(min(wanted, tasks), 1)
    if gpus:
        return tuple(
            Place(name=f"GPU {gpu.index} ({gpu.name})", environment=gpu_environment(gpu)) for gpu in gpus[:count]
        )
    parts = [cores[i * len(cores) // count : (i + 1) * len(cores) // count] for i in range(count)]
    return tuple(Place(name=f"process {i}", cores=frozenset(part)) for i, part in enumerate(parts, 1))


def in_turn(
    tasks: Sequence[Task], open_work: Callable[[], Work[Task, Result]], *, on_advance: Callable[[int, int, int], None]
) -> Iterator[Outcome[Result]]:
    """Does the tasks one after the other in this process.

    `on_advance` is called with a task's index, what is done of it and all there is.

    Raises:
        InputError: `open_work` does.
    """
    work = open_work()
    for index, task in enumerate(tasks):
        try:
            result = work(task, lambda done, total, index=index: on_advance(index, done, total))  # type: ignore[misc]
        except (InputError, ModelError) as error:
            yield Outcome(index=index, failure=str(error))
        else:
            yield Outcome(index=index, result=result)


def side_by_side(
    tasks: Sequence[Task],
    open_work: Callable[[], Work[Task, Result]],
    places: Sequence[Place],
    *,
    sizes: Sequence[float],
    on_advance: Callable[[int, int, int], None],
    on_loss: Callable[[Place, str], None],
) -> Iterator[Outcome[Result]]:
    """Does the tasks in one process for each place; each takes the largest that is left whenever it is free.

    A process that dies costs the task it was at; the others do the rest. `open_work`, tasks and results are sent
    between processes, so they are picklable. `on_loss` hears of places that are lost, and why.

    Raises:
        InputError: `open_work` does, in every process.
    """
    waiting = collections.deque(sorted(range(len(tasks)), key=lambda i: -sizes[i]))
    reasons: list[str] = []
    refusals: list[str] = []
    crew: dict[Connection, _Member] = {}
    try:
        for place in places:
            member = _hire(place, open_work)
            crew[member.connection] = member
        while crew:
            for ready in multiprocessing.connection.wait(list(crew)):
                member = crew[ready]  # type: ignore[index]
                try:
                    kind, content = member.connection.recv()
                except (EOFError, OSError):
                    kind, content = "lost", member.end()
                if kind == "advance":
                    assert member.index is not None
                    on_advance(member.index, *content)
                    continue
                index, member.index = member.index, None
                if index is not None:
                    yield Outcome(
                        index=index,
                        result=content if kind == "done" else None,
                        failure="" if kind == "done" else content if kind == "failed" else f"its process {content}",
                    )
                if kind in ("lost", "refused"):
                    del crew[member.connection]
                    member.dismiss()
                    reasons.append(f"{member.place.name}: {content}")
                    refusals += [content] if kind == "refused" else []
                    on_loss(member.place, content)
                elif waiting:
                    member.index = waiting.popleft()
                    with contextlib.suppress(OSError):  # it died; the next wait says so
                        member.connection.send(tasks[member.index])
                else:
                    del crew[member.connection]
                    member.dismiss()
        if len(refusals) == len(places):
            raise InputError(refusals[0])
        for index in waiting:
            yield Outcome(index=index, failure=f"no process was left to do it ({'; '.join(reasons)})")
    finally:
        for member in crew.values():
            member.process.terminate()
            member.dismiss()


@dataclasses.dataclass(kw_only=True)
class _Member:
    """One process as its parent sees it."""

    place: Place
    process: SpawnProcess
    connection: Connection
    index: int | None = None
    """Of the task that it is at."""

    def end(self) -> str:
        """How it died."""
        self.process.join(_PATIENCE_SECONDS)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def dismiss(self) -> None:
        """Lets it end, and makes it if it does not."""
        self.connection.close()
        self.process.join(_PATIENCE_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


def _hire(place: Place, open_work: Callable[[], Work[Task, Result]]) -> _Member:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, open_work), name=place.name, daemon=True)
    with starts_a_process(), _as_at(place):
        process.start()
    theirs.close()  # its copy is then the only one, and ends with it
    return _Member(place=place, process=process, connection=ours)


def _serve(connection: Connection, open_work: Callable[[], Work[Any, Any]]) -> None:
    """A process: does what it is sent, until the other end is closed."""
    with ends_at_once(signal.SIGTERM, code=128 + signal.SIGTERM):  # within a native call too
        _work(connection, open_work)


def _work(connection: Connection, open_work: Callable[[], Work[Any, Any]]) -> None:
    try:
        work = open_work()
    except InputError as error:
        connection.send(("refused", str(error)))
        return
    connection.send(("free", None))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task = connection.recv()
            try:
                result = work(task, lambda done, total: connection.send(("advance", (done, total))))
            except (InputError, ModelError) as error:
                connection.send(("failed", str(error)))
            else:
                connection.send(("done", result))


@contextlib.contextmanager
def _as_at(place: Place) -> Iterator[None]:
    """This process's environment and cores as they are to be of one that is started meanwhile, before JAX is there."""
    before = {name: os.environ.get(name) for name in place.environment}
    cores = os.sched_getaffinity(0) if place.cores else set()
    # Ctrl-C is the parent's to answer: a blocked signal stays so in what is started, and reaches the parent afterwards.
    multiprocessing.resource_tracker.ensure_running()  # which would unblock it, where that is started meanwhile
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    os.environ.update(place.environment)
    if place.cores:
        os.sched_setaffinity(0, place.cores)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if place.cores:
            os.sched_setaffinity(0, cores)
