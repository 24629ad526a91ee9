"""Tasks shared out among processes: all are done, the largest first, and a death costs one task."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import sys
from collections.abc import Callable

import pytest

from jaxcryo.errors import InputError
from jaxcryo.runtime.cuda import Gpu
from jaxcryo.runtime.workers import Outcome, Place, in_turn, plan_places, side_by_side

sys.path.append(str(pathlib.Path(__file__).parent))
import worker_tasks

ONE, TWO = Place(name="one", environment={"WHERE": "one"}), Place(name="two", environment={"WHERE": "two"})


def share(
    tasks: list[str],
    places: list[Place],
    *,
    open_work: Callable[[], object] = worker_tasks.open_work,
    sizes: list[float] | None = None,
    losses: list[str] | None = None,
) -> list[Outcome[str]]:
    def lose(place: Place, reason: str) -> None:
        if losses is not None:
            losses.append(f"{place.name}: {reason}")

    outcomes = side_by_side(
        tasks, open_work, places, sizes=sizes or [1] * len(tasks), on_advance=lambda *_: None, on_loss=lose
    )
    return sorted(outcomes, key=lambda o: o.index)


def gpu(index: int) -> Gpu:
    return Gpu(index=index, name="Tesla T4", compute_capability="7.5", memory_bytes=1, driver="12.4")


def test_all_are_done_and_failures_are_their_own() -> None:
    assert share(["a", "bad", "b", "c"], [ONE, TWO]) == [
        Outcome(index=0, result="a done"),
        Outcome(index=1, failure="cannot be used"),
        Outcome(index=2, result="b done"),
        Outcome(index=3, result="c done"),
    ]
    assert not multiprocessing.active_children()


def test_both_processes_work_at_once(tmp_path: pathlib.Path) -> None:
    outcomes = share([f"wait for {tmp_path / 'flag'}", f"touch {tmp_path / 'flag'}"], [ONE, TWO])
    assert [o.failure for o in outcomes] == ["", ""]


@pytest.mark.parametrize(("task", "end"), [("die", "was killed by SIGKILL"), ("exit", "ended with exit code 3")])
def test_a_death_costs_one_task_and_the_other_process_does_the_rest(task: str, end: str) -> None:
    losses: list[str] = []
    outcomes = share([task, "a", "b", "c"], [ONE, TWO], sizes=[9, 1, 1, 1], losses=losses)
    assert outcomes[0] == Outcome(index=0, failure=f"its process {end}")
    assert [o.result for o in outcomes[1:]] == ["a done", "b done", "c done"]
    assert losses in ([f"one: {end}"], [f"two: {end}"])


def test_where_all_die_the_rest_is_reported_as_not_done() -> None:
    outcomes = share(["die", "exit", "a"], [ONE, TWO], sizes=[3, 2, 1])
    assert [o.result for o in outcomes] == [None] * 3
    assert outcomes[2].failure.startswith("no process was left to do it (") and "SIGKILL" in outcomes[2].failure


def test_the_largest_come_first() -> None:
    order: list[int] = []
    outcomes = side_by_side(
        ["a", "b", "c"], worker_tasks.open_work, [ONE], sizes=[2, 3, 1],
        on_advance=lambda index, *_: order.append(index), on_loss=lambda *_: None,
    )  # fmt: skip
    assert [o.index for o in outcomes] == order == [1, 0, 2]


def test_processes_have_their_own_environment_and_cores() -> None:
    cores = sorted(os.sched_getaffinity(0))
    place = Place(name="there", environment={"WHERE": "there"}, cores=frozenset(cores[:1]))
    (outcome,) = share(["where"], [place])
    assert outcome.result == f"there {cores[:1]}"
    assert "WHERE" not in os.environ and sorted(os.sched_getaffinity(0)) == cores


def test_places_that_refuse() -> None:
    with pytest.raises(InputError, match="no engine fits"):
        share(["a"], [ONE, TWO], open_work=worker_tasks.refuse)
    losses: list[str] = []
    outcomes = share(["a", "b"], [ONE, TWO], open_work=worker_tasks.refuse_on_one, losses=losses)
    assert [o.result for o in outcomes] == ["a done", "b done"]
    assert losses in ([], ["one: no engine fits"])  # it may come to nothing before it is asked
    assert not multiprocessing.active_children()


def test_leaving_early_ends_the_processes() -> None:
    outcomes = side_by_side(
        ["a", "wait for /nowhere"], worker_tasks.open_work, [ONE, TWO], sizes=[1, 1], on_advance=lambda *_: None,
        on_loss=lambda *_: None,
    )  # fmt: skip
    assert next(outcomes).result == "a done"
    outcomes.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_in_turn_does_the_same_in_this_process() -> None:
    advanced: list[tuple[int, int, int]] = []
    outcomes = in_turn(["a", "bad"], worker_tasks.open_work, on_advance=lambda *args: advanced.append(args))
    assert list(outcomes) == [Outcome(index=0, result="a done"), Outcome(index=1, failure="cannot be used")]
    assert advanced == [(0, 1, 2), (1, 1, 2)]


def test_one_place_on_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    places = plan_places(None, [gpu(0), gpu(1)], tasks=5)
    assert [p.name for p in places] == ["GPU 0 (Tesla T4)", "GPU 1 (Tesla T4)"]
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in places] == ["0", "1"]
    assert len(plan_places(None, [gpu(0), gpu(1)], tasks=1)) == 1
    assert len(plan_places(1, [gpu(0), gpu(1)], tasks=5)) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8932f937")
    visible = [p.environment["CUDA_VISIBLE_DEVICES"] for p in plan_places(2, [gpu(0), gpu(1)], tasks=2)]
    assert visible == ["2", "GPU-8932f937"]


def test_processes_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)))
    assert [p.cores for p in plan_places(2, (), tasks=9)] == [{0, 1}, {2, 3, 4}]
    assert len(plan_places(None, (), tasks=9)) == 1
    assert len(plan_places(5, (), tasks=0)) == 1
    with pytest.raises(InputError, match=r"--processes.*\b6\b.*\b5\b"):
        plan_places(6, (), tasks=9)
    with pytest.raises(InputError, match=r"--processes.*\b3\b.*\b2\b"):
        plan_places(3, [gpu(0), gpu(1)], tasks=9)
    with pytest.raises(InputError, match=r"--processes.*\b0\b"):
        plan_places(0, (), tasks=9)
