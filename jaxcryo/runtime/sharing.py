"""Tasks distributed over the workers of a Dask cluster: which worker gets which task, and what happens to lost ones.

Every worker has one task at a time, given to it by name, so that it is known who was at what. Dask starts and restarts
the workers, carries tasks and news, and notices who is gone.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import pickle
import platform
import queue
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic

from distributed import Client, Future, KilledWorker

from jaxcryo import __version__
from jaxcryo.errors import InputError
from jaxcryo.runtime.serving import Terms, Unwanted, greet, serve
from jaxcryo.runtime.workers import Outcome, Result, Task, Work

TRIES = 2
"""Workers that a task is given to before it counts as failed; what is wrong with its input is said at the first."""
_SECONDS_BETWEEN_LOOKS = 1.0
_FIRST_WAIT_SAID_SECONDS = 10.0
_SECONDS_TO_CONNECT_AGAIN = 120.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """How long is waited, in seconds."""

    silent: float = 1800.0
    """Longest silence of a worker before it is taken to hang: far longer than models take to compile."""
    refused: float = 60.0
    """For another worker, where all that there are cannot take part."""
    alone: float = math.inf
    """For a worker where there is none; jobs in a queue may take days."""


LOCAL = Patience(refused=5.0, alone=300.0)
"""With workers of this machine, all of which are there from the start and are started anew where they die."""


def shared_out(
    client: Client,
    tasks: Sequence[Task],
    open_work: Callable[[], Work[Task, Result]],
    *,
    sizes: Sequence[float],
    after: Mapping[int, Collection[int]] = MappingProxyType({}),
    on_advance: Callable[[int, int, int], None],
    on_note: Callable[[str], object],
    patience: Patience = Patience(),
) -> Iterator[Outcome[Result]]:
    """Does the tasks on the workers of a cluster, the largest first; each worker that is free takes the next.

    Workers may come and go. A task whose worker is lost, or fails in a way that is not the task's, is given to one
    more. A task may come `after` others: it is begun when these have their outcomes, whatever they are. `open_work`,
    tasks and results are sent between processes, so they are picklable.

    Raises:
        InputError: no worker can take part; with the reason of one.
    """
    terms = Terms(topic=f"jaxcryo-{uuid.uuid4().hex}", version=__version__, open_work=open_work)
    sharing = _Sharing(client, tasks, terms, sizes, after, on_advance, on_note, patience)
    client.subscribe_topic(terms.topic, lambda event: sharing.events.put(("news", event[1])))
    try:
        while sharing.unfinished:
            yield from sharing.step()
    finally:
        sharing.end()


@dataclasses.dataclass(kw_only=True)
class _Member:
    """A worker as it is seen from here."""

    address: str
    name: str
    future: Future[Any] | None
    """Of its greeting, then of its task; None while it is free."""
    heard: float
    index: int | None = None
    """Of its task."""
    reply: tuple[Any, str] | None = None


class _Sharing(Generic[Task, Result]):
    def __init__(
        self,
        client: Client,
        tasks: Sequence[Task],
        terms: Terms[Task, Result],
        sizes: Sequence[float],
        after: Mapping[int, Collection[int]],
        on_advance: Callable[[int, int, int], None],
        on_note: Callable[[str], object],
        patience: Patience,
    ) -> None:
        self.client, self.tasks, self.terms, self.after, self.patience = client, tasks, terms, after, patience
        self.on_advance, self.on_note = on_advance, on_note
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.unfinished = set(range(len(tasks)))
        self.waiting = sorted(range(len(tasks)), key=lambda index: -sizes[index])
        self.losses: dict[int, list[tuple[str, str]]] = collections.defaultdict(list)
        """Of a task: names of workers that it was lost on, which one that was started anew keeps, and why."""
        self.members: dict[str, _Member] = {}
        self.by_key: dict[Any, _Member] = {}
        self.refused: dict[str, str] = {}
        """Addresses of workers that cannot take part, and why."""
        self.silent: set[str] = set()
        """Addresses of workers that are taken to hang."""
        self.looked = -math.inf
        self.broken_since = math.inf
        """The scheduler has not answered since then."""
        self.empty_since = time.monotonic()
        self.wait_said_after = _FIRST_WAIT_SAID_SECONDS

    def step(self) -> Iterator[Outcome[Result]]:
        """Waits a while for something to happen, and answers it."""
        if time.monotonic() - self.looked >= _SECONDS_BETWEEN_LOOKS:
            yield from self._look_around()
        self._hand_out()
        try:
            kind, content = self.events.get(timeout=_SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            return
        if kind == "news":
            self._hear(content)
        else:
            yield from self._settle(content)

    def end(self) -> None:
        """Takes back what is still being done."""
        if self.client.status == "running":
            self.client.unsubscribe_topic(self.terms.topic)
            at_work = [member.future for member in self.members.values() if member.future is not None]
            if at_work:
                self.client.cancel(at_work)

    def _look_around(self) -> Iterator[Outcome[Result]]:
        """Who has come, who is gone, who is silent; the end, where nobody can go on."""
        now = self.looked = time.monotonic()
        try:
            if self.client.status != "running":
                raise OSError(f"the client is {self.client.status}")
            present = set(self.client.nthreads())
        except OSError as error:
            # Dask connects again by itself, and closes the client where that does not succeed.
            ended = self.client.status in ("closing", "closed")
            if ended or now - self.broken_since > _SECONDS_TO_CONNECT_AGAIN:
                yield from self._give_up(f"the connection to the scheduler broke ({error})")
            self.broken_since = min(self.broken_since, now)
            return
        self.broken_since = math.inf
        for address in set(self.members) - present:
            yield from self._lose(self.members[address], "died or went away")
        self.refused = {address: reason for address, reason in self.refused.items() if address in present}
        self.silent &= present
        for address in present - set(self.members) - set(self.refused) - self.silent:
            self._submit(_Member(address=address, name=address, future=None, heard=now), greet, self.terms)
        for member in list(self.members.values()):
            if member.future is not None and now - member.heard > self.patience.silent:
                reason = f"gave no sign of life for {self.patience.silent:g} s"
                self.silent.add(member.address)
                _restart(self.client, member.address)
                yield from self._lose(member, reason)
        if self.members:
            self.empty_since, self.wait_said_after = now, _FIRST_WAIT_SAID_SECONDS
        else:
            yield from self._wait_for_anybody(now - self.empty_since)

    def _wait_for_anybody(self, seconds: float) -> Iterator[Outcome[Result]]:
        if self.refused and seconds >= self.patience.refused:
            address, reason = next(iter(self.refused.items()))
            if len(self.unfinished) == len(self.tasks):
                raise InputError(f"none of the workers can be used; {address} {reason}")
            yield from self._give_up(f"none of the workers that are left can be used; {address} {reason}")
        elif seconds >= self.patience.alone:
            yield from self._give_up("no worker was left to do it")
        elif seconds >= self.wait_said_after:
            self.wait_said_after *= 3
            self.on_note("waiting for workers to join the cluster")

    def _submit(self, member: _Member, function: Callable[..., object], *arguments: object) -> None:
        key = f"{function.__name__}-{uuid.uuid4().hex}"
        self.members[member.address] = self.by_key[key] = member
        member.heard = time.monotonic()
        member.future = self.client.submit(
            function, *arguments, key=key, workers=[member.address], pure=False, allow_other_workers=False
        )
        member.future.add_done_callback(lambda future: self.events.put(("settled", future)))

    def _hand_out(self) -> None:
        if self.client.status != "running":
            return  # Dask forgets what it is given while it connects again
        for member in list(self.members.values()):
            if member.future is None and self.waiting:
                place = next((i for i, index in enumerate(self.waiting) if self._may_have(member, index)), None)
                if place is not None:
                    member.index = self.waiting.pop(place)
                    self._submit(member, serve, self.terms, self.tasks[member.index])

    def _may_have(self, member: _Member, index: int) -> bool:
        """A task that was lost goes to another worker, unless there is none."""
        if not self.unfinished.isdisjoint(self.after.get(index, ())):
            return False
        lost_on = {name for name, _ in self.losses.get(index, ())}
        return member.name not in lost_on or {other.name for other in self.members.values()} <= lost_on

    def _hear(self, news: dict[str, Any]) -> None:
        member = self.by_key.get(news["key"])
        if member is None:
            return  # of one that was given up
        member.heard = time.monotonic()
        if "name" in news:
            name, machine = news["name"], news["machine"]
            member.name = name if machine == platform.node() else f"{name} on {machine}"
        elif "reply" in news:
            member.reply = pickle.loads(news["reply"])
        elif "note" in news:
            self.on_note(news["note"])
        elif member.index is not None:
            self.on_advance(member.index, news["done"], news["total"])

    def _settle(self, future: Future[Any]) -> Iterator[Outcome[Result]]:
        """Dask is done with what a worker was given."""
        member = self.by_key.get(future.key)
        if member is None:
            return
        error = future.exception() if future.status == "error" else None
        if member.reply is not None:
            yield self._answer(member)
        elif future.status in ("cancelled", "lost"):
            # As all are when the connection to the scheduler breaks: the worker, if it is there, is greeted anew.
            if member.index is not None:
                self.waiting.insert(0, member.index)
            self._forget(member)
        elif future.status == "finished" and member.index is None:
            self._free(member)  # it has greeted
        elif future.status == "finished":
            yield from self._fail(member, "gave no answer")
        elif member.index is None and error is not None:
            reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            self._forget(member)
            self.refused[member.address] = reason
            self.on_note(f"the worker {member.name} is not used: {reason}")
        elif error is not None and not isinstance(error, KilledWorker | Unwanted):
            yield from self._fail(member, f"{type(error).__name__}: {error}")
        # Of the rest the worker is going: it is missed at the next look.

    def _answer(self, member: _Member) -> Outcome[Result]:
        """A worker is done with its task."""
        assert member.index is not None and member.reply is not None
        outcome = Outcome(index=member.index, result=member.reply[0], failure=member.reply[1])
        self._free(member)
        self.unfinished.discard(outcome.index)
        return outcome

    def _fail(self, member: _Member, reason: str) -> Iterator[Outcome[Result]]:
        """A worker's task is lost; it is given to one more, or counts as failed."""
        index = member.index
        self._free(member)
        assert index is not None
        self.losses[index].append((member.name, f"{member.name} {reason}"))
        if len(self.losses[index]) < TRIES:
            self.waiting.insert(0, index)
            self.on_note(f"the worker {member.name} {reason}; its run is given to another")
        else:
            self.unfinished.discard(index)
            reasons = "; ".join(reason for _, reason in self.losses[index])
            yield Outcome(index=index, failure=f"was tried {TRIES} times: {reasons}")

    def _lose(self, member: _Member, reason: str) -> Iterator[Outcome[Result]]:
        """A worker is gone, or as good as gone."""
        if member.reply is not None:
            yield self._answer(member)
        elif member.index is not None:
            yield from self._fail(member, reason)
        else:
            self.on_note(f"the worker {member.name} {reason}")
        self._forget(member)

    def _free(self, member: _Member) -> None:
        if member.future is not None:
            self.by_key.pop(member.future.key, None)
            member.future.release()
        member.index = member.reply = member.future = None

    def _forget(self, member: _Member) -> None:
        self._free(member)
        self.members.pop(member.address, None)

    def _give_up(self, reason: str) -> Iterator[Outcome[Result]]:
        at_work = [member.index for member in self.members.values() if member.index is not None]
        for member in list(self.members.values()):
            self._forget(member)
        for index in sorted({*at_work, *self.waiting}):
            yield Outcome(index=index, failure=reason)
        self.waiting, self.unfinished = [], set()


def _restart(client: Client, address: str) -> None:
    """Kills a worker that does not answer; where it has a nanny, that starts another one."""

    def restart() -> None:
        with contextlib.suppress(Exception):  # it has no nanny, or is gone meanwhile
            client.restart_workers([address], raise_for_error=False)

    threading.Thread(target=restart, daemon=True, name=f"restart {address}").start()
