"""Tasks shared out among workers in this process: all are done, the largest first, and none is lost with a worker."""

from __future__ import annotations

import asyncio
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from distributed import Client, Scheduler, SpecCluster, Worker

from jaxcryo.errors import InputError
from jaxcryo.runtime.serving import Terms, greet
from jaxcryo.runtime.sharing import Patience, shared_out
from jaxcryo.runtime.workers import Outcome

sys.path.append(str(pathlib.Path(__file__).parent))
import worker_tasks

LONG = 300
"""Seconds within which a busy machine does what takes none."""


class Crew:
    """Workers in this process, and what is said of them."""

    def __init__(self, cluster: SpecCluster, client: Client) -> None:
        self.cluster, self.client = cluster, client
        self.workers: dict[str, Worker] = {}
        self.notes: list[str] = []
        self.advanced: list[tuple[int, int, int]] = []

    def begin(
        self,
        tasks: list[str],
        open_work: Callable[[], object] = worker_tasks.open_work,
        *,
        sizes: list[float] | None = None,
        after: dict[int, tuple[int, ...]] = {},  # noqa: B006
        patience: Patience = Patience(),  # noqa: B008
    ) -> Iterator[Outcome[str]]:
        return shared_out(
            self.client,
            tasks,
            open_work,
            sizes=sizes or [1] * len(tasks),
            after=after,
            on_advance=lambda *news: self.advanced.append(news),
            on_note=self.notes.append,
            patience=patience,
        )

    def share(self, tasks: list[str], *arguments, **options) -> list[Outcome[str]]:
        return sorted(self.begin(tasks, *arguments, **options), key=lambda o: o.index)

    def add(self, *names: str) -> None:
        async def add() -> None:
            made = [
                Worker(
                    self.cluster.scheduler_address, name=n, nthreads=1, memory_limit=0, dashboard_address="127.0.0.1:0"
                )
                for n in names
            ]
            self.workers.update(zip(names, await asyncio.gather(*made), strict=True))

        self.cluster.sync(add)

    def end(self, name: str) -> None:
        """To the scheduler this worker is gone, without a farewell."""
        remove = self.cluster.scheduler.remove_worker
        self.cluster.sync(remove, self.workers[name].address, stimulus_id="of the test")

    def cut(self) -> None:
        """The connection between the client and the scheduler breaks."""
        connections = self.cluster.scheduler.client_comms
        wait_for(lambda: self.client.id in connections)
        self.cluster.sync(connections[self.client.id].comm.close)

    def began(self) -> list[str]:
        """The tasks that were begun, in that order."""
        return [note.removeprefix("began ") for note in self.notes if note.startswith("began ")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[SpecCluster]:
    options = {"protocol": "inproc://", "dashboard_address": "127.0.0.1:0"}
    with SpecCluster({}, {"cls": Scheduler, "options": options}) as cluster:
        yield cluster


@pytest.fixture
def crew(cluster: SpecCluster) -> Iterator[Crew]:
    with Client(cluster, set_as_default=False) as client:
        crew = Crew(cluster, client)
        yield crew

        async def close() -> None:
            await asyncio.gather(*(worker.close() for worker in crew.workers.values()))

        cluster.sync(close)


def outcomes(crew: Crew, begun: Iterator[Outcome[str]]) -> tuple[threading.Thread, list[Outcome[str]]]:
    """They come into the list while the test goes on."""
    came: list[Outcome[str]] = []
    thread = threading.Thread(target=lambda: came.extend(begun), daemon=True)
    thread.start()
    return thread, came


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_are_done_and_failures_are_their_own(crew: Crew) -> None:
    crew.add("one", "two")
    assert crew.share(["a", "bad", "b", "c"]) == [
        Outcome(index=0, result="a done"),
        Outcome(index=1, failure="cannot be used"),
        Outcome(index=2, result="b done"),
        Outcome(index=3, result="c done"),
    ]
    assert sorted(crew.began()) == ["a", "b", "bad", "c"]
    assert sorted(crew.advanced) == [(index, 2, 2) for index in range(4)]


def test_both_work_at_once(crew: Crew, tmp_path: pathlib.Path) -> None:
    crew.add("one", "two")
    assert [o.failure for o in crew.share([f"sleep {tmp_path / 'flag'}", f"touch {tmp_path / 'flag'}"])] == ["", ""]


def test_the_largest_come_first(crew: Crew) -> None:
    crew.add("one")
    assert [o.index for o in crew.begin(["a", "b", "c"], sizes=[2, 3, 1])] == [1, 0, 2]
    assert crew.began() == ["b", "a", "c"]


def test_what_comes_after_others_waits_for_their_outcomes_whatever_they_are(crew: Crew) -> None:
    crew.add("one", "two")
    tasks, sizes = ["last", "bad", "a", "b", "fault"], [9, 1, 1, 2, 1]
    found = list(crew.begin(tasks, sizes=sizes, after={0: (1, 2, 3, 4), 2: (3,)}))
    assert found[-1] == Outcome(index=0, result="last done")
    assert [o.index for o in found].index(3) < [o.index for o in found].index(2)
    assert len(found) == 5


def test_a_task_whose_worker_is_lost_is_done_by_another_once(crew: Crew, tmp_path: pathlib.Path) -> None:
    crew.add("one")
    thread, came = outcomes(crew, crew.begin([f"wait {tmp_path / 'flag'}", "a", "b"], sizes=[9, 1, 1]))
    wait_for(crew.began)
    crew.add("late")
    wait_for(lambda: len(came) == 2)  # it did what the other did not come to
    crew.end("one")
    wait_for(lambda: len(crew.began()) == 4)
    (tmp_path / "flag").touch()
    thread.join(LONG)
    assert [(o.index, o.failure) for o in came] == [(1, ""), (2, ""), (0, "")]
    assert any("one died or went away" in note for note in crew.notes)


def test_a_broken_connection_costs_no_run(crew: Crew, tmp_path: pathlib.Path) -> None:
    crew.add("one")
    flag = tmp_path / "flag"
    thread, came = outcomes(crew, crew.begin([f"wait {flag}", "a"], sizes=[2, 1]))
    wait_for(crew.began)
    for times in (2, 3):  # as often as it may be lost with a worker
        crew.cut()
        wait_for(lambda times=times: len(crew.began()) == times)
    flag.touch()
    thread.join(LONG)
    assert [(o.index, o.failure) for o in came] == [(0, ""), (1, "")]


def test_a_task_that_fails_without_saying_why_is_tried_on_two(crew: Crew) -> None:
    crew.add("one", "two")
    first, second = crew.share(["fault", "a"])
    assert first.failure.count("ZeroDivisionError: by zero") == 2
    assert "one" in first.failure and "two" in first.failure
    assert second == Outcome(index=1, result="a done")
    assert crew.began().count("fault") == 2


def test_one_worker_alone_tries_it_twice(crew: Crew) -> None:
    crew.add("one")
    (outcome,) = crew.share(["fault"])
    assert outcome.failure.count("one ZeroDivisionError") == 2


@pytest.mark.slow
def test_a_worker_that_hangs_is_given_up_and_its_task_done_elsewhere(crew: Crew, tmp_path: pathlib.Path) -> None:
    crew.add("one")
    flag = tmp_path / "flag"
    thread, came = outcomes(crew, crew.begin([f"sleep {flag}"], patience=Patience(silent=5)))
    wait_for(crew.began)
    crew.add("two")
    wait_for(lambda: len(crew.began()) == 2)
    flag.touch()
    thread.join(LONG)
    assert [o.failure for o in came] == [""] or "no sign of life" in came[0].failure  # the second too, where it is slow
    assert any("one gave no sign of life for 5 s" in note for note in crew.notes)


def test_workers_that_cannot_take_part_are_not_used(crew: Crew) -> None:
    crew.add("one", "two")
    found = crew.share(["a", "b"], worker_tasks.refuse_on_one)
    assert [o.result for o in found] == ["a done", "b done"]
    assert [n for n in crew.notes if "not used" in n] in ([], ["the worker one is not used: no engine fits"])


def test_where_none_can_take_part_its_reason_is_raised(crew: Crew) -> None:
    crew.add("one", "two")
    with pytest.raises(InputError, match="no engine fits"):
        crew.share(["a"], worker_tasks.refuse, patience=Patience(refused=0))


def test_another_version_is_refused_by_its_number(crew: Crew) -> None:
    crew.add("one")
    terms = Terms(topic="t", version="9.9", open_work=worker_tasks.open_work)
    with pytest.raises(InputError, match=r"has jaxcryo .* expected 9\.9"):
        crew.client.submit(greet, terms).result()


def test_where_nobody_comes_it_is_said_and_given_up_in_time(crew: Crew) -> None:
    found = crew.share(["a", "b"], patience=Patience(alone=0))
    assert [o.failure for o in found] == ["no worker was left to do it"] * 2


def test_leaving_early_takes_back_what_is_being_done(crew: Crew, tmp_path: pathlib.Path) -> None:
    crew.add("one", "two")
    begun = crew.begin(["a", f"wait {tmp_path / 'flag'}"], sizes=[1, 2])
    assert next(begun).result == "a done"
    begun.close()  # type: ignore[attr-defined]
    wait_for(lambda: not any(worker.state.executing for worker in crew.workers.values()))
    assert not (tmp_path / "flag").exists()


def test_models_are_opened_once_a_worker(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(worker_tasks, "open_work", lambda: opened.append("") or worker_tasks.work)
    crew.add("one", "two")
    assert len(crew.share([str(number) for number in range(9)], worker_tasks.open_again)) == 9
    assert 1 <= len(opened) <= 2
