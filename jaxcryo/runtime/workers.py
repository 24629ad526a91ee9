"""What is done to every run, and where: one after the other in this process, or on places of this machine."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from jaxcryo.errors import InputError
from jaxcryo.runtime.cuda import Gpu, gpu_environment
from jaxcryo.runtime.opened import ModelError

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listener:
    """Whom a task tells how far it is."""

    advance: Callable[[int, int], None]
    """Called with what is done of the task and all there is."""
    note: Callable[[str], object]
    """Called with a sentence for people."""


Work = Callable[[Task, Listener], Result]
"""Does one task; `InputError` and `ModelError` are failures of that task."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where one worker process runs."""

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


def plan_places(workers: int | None, gpus: Sequence[Gpu], tasks: int) -> tuple[Place, ...]:
    """A place for each worker, none more than tasks. By default one on each GPU, or a single one on the CPU.

    Workers on the CPU have their own cores each.

    Raises:
        InputError: there are fewer GPUs, or cores, than workers asked for.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    available = len(gpus) or len(cores) or os.cpu_count() or 1
    wanted = workers if workers is not None else max(len(gpus), 1)
    if not 1 <= wanted <= available:
        kind = "GPU" if gpus else "core"
        raise InputError(f"--workers is {wanted}; expected 1 to {available}, one for each {kind} at most")
    count = max(min(wanted, tasks), 1)
    if gpus:
        return tuple(
            Place(name=f"GPU {gpu.index} ({gpu.name})", environment=gpu_environment(gpu)) for gpu in gpus[:count]
        )
    parts = [cores[i * len(cores) // count : (i + 1) * len(cores) // count] for i in range(count)]
    return tuple(Place(name=f"worker {i}", cores=frozenset(part)) for i, part in enumerate(parts, 1))


def in_turn(
    tasks: Sequence[Task],
    open_work: Callable[[], Work[Task, Result]],
    *,
    on_advance: Callable[[int, int, int], None],
    on_note: Callable[[str], object],
) -> Iterator[Outcome[Result]]:
    """Does the tasks one after the other in this process.

    `on_advance` is called with a task's index, what is done of it and all there is.

    Raises:
        InputError: `open_work` does.
    """
    work = open_work()
    for index, task in enumerate(tasks):
        try:
            result = work(task, Listener(advance=functools.partial(on_advance, index), note=on_note))
        except (InputError, ModelError) as error:
            yield Outcome(index=index, failure=str(error))
        else:
            yield Outcome(index=index, result=result)
