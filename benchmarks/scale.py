"""Thousands of stand-in runs on up to 200 workers that fail, vanish and return at random: is anything lost, is anything
done more often than it must be, and what does a run cost besides its work?

The workers live in this process, each with a thread; Dask's scheduler, its messages and all that `infer` adds to them
are the real ones. A stand-in sleeps instead of computing, and writes a file as picks are written.

    python benchmarks/scale.py --runs 5000 --workers 200
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import functools
import pathlib
import random
import statistics
import tempfile
import threading
import time

import dask
from distributed import Client, Scheduler, SpecCluster, Worker, get_worker

from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.runtime.sharing import TRIES, Patience, shared_out
from jaxcryo.runtime.workers import Listener

BAD_SHARE, FAULTY_SHARE, HANGING_SHARE = 0.01, 0.01, 0.002
"""Of the runs: those whose tomogram cannot be read, that fail at their first worker, that hang at it."""
SILENT_SECONDS = 20.0
QUIET = {  # what every worker does many times a second, of which there are hundreds in one process here
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.admin.tick.interval": "1h",
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "10 minutes",
    "distributed.scheduler.worker-ttl": None,
}


class Diary:
    """What the stand-ins did, as they saw it themselves."""

    def __init__(self) -> None:
        self.begun: dict[int, list[str]] = collections.defaultdict(list)
        """Addresses of the workers that began a run."""
        self.times: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
        """When each worker began and ended its runs."""
        self.over = threading.Event()


def stand_in(diary: Diary, folder: pathlib.Path, seconds: float, task: tuple[int, str], listener: Listener) -> int:
    """Does a run: its number, and what is to become of it."""
    number, kind = task
    began, address = time.monotonic(), get_worker().address
    diary.begun[number].append(address)
    first = len(diary.begun[number]) == 1
    if kind == "hangs" and first:
        diary.over.wait()
    for step in range(4):
        time.sleep(seconds / 4)
        listener.advance(step + 1, 4)
    diary.times[address].append((began, time.monotonic()))
    if kind == "bad":
        raise InputError("no such tomogram")
    if kind == "faulty" and first:
        raise MemoryError("out of memory")
    write_text(folder / f"{number}.json", str(number))
    return number


class Hosts:
    """Workers that come and go."""

    def __init__(self, cluster: SpecCluster, count: int, rng: random.Random) -> None:
        self.cluster, self.count, self.rng = cluster, count, rng
        self.workers: dict[str, Worker] = {}
        self.vanished = 0
        self.returned = 0

    def start(self, names: list[str]) -> None:
        async def start() -> list[Worker]:
            options = {"nthreads": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
            return list(
                await asyncio.gather(*(Worker(self.cluster.scheduler_address, name=n, **options) for n in names))
            )

        for name, worker in zip(names, self.cluster.sync(start), strict=True):
            self.workers[name] = worker

    def close(self) -> None:
        async def close() -> None:
            await asyncio.gather(*(worker.close() for worker in self.workers.values()))

        self.cluster.sync(close)

    def haunt(self, every_seconds: float, over: threading.Event) -> None:
        """Lets a worker vanish now and then, and another come back."""
        while not over.wait(self.rng.expovariate(1 / every_seconds)):
            absent = [f"host {i}" for i in range(self.count) if f"host {i}" not in self.workers]
            if absent and self.rng.random() < 0.5:
                self.start([self.rng.choice(absent)])
                self.returned += 1
            elif len(self.workers) > 1:
                worker = self.workers.pop(self.rng.choice(sorted(self.workers)))
                # For the scheduler it is gone without a word; its thread goes on, as beyond a broken network.
                self.cluster.sync(self.cluster.scheduler.remove_worker, worker.address, stimulus_id="haunted")
                self.vanished += 1


def simulate(runs: int, workers: int, seconds: float, haunted_seconds: float, seed: int) -> None:
    """Shares the stand-ins out, and prints what came of it."""
    rng, diary = random.Random(seed), Diary()
    tasks = [(i, rng.choices(("bad", "faulty", "hangs", "good"), _weights())[0]) for i in range(runs)]
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as temporary, dask.config.set(QUIET):
        folder = pathlib.Path(temporary)
        options = {"protocol": "inproc://", "dashboard_address": "127.0.0.1:0"}
        cluster = SpecCluster({}, {"cls": Scheduler, "options": options}, silence_logs="CRITICAL")
        client = Client(cluster, set_as_default=False)
        hosts = Hosts(cluster, workers, rng)
        hosts.start([f"host {i}" for i in range(workers)])
        ghost = threading.Thread(target=hosts.haunt, args=(haunted_seconds, diary.over), daemon=True)
        _TO_OPEN.append(functools.partial(stand_in, diary, folder, seconds))
        began, cpu = time.monotonic(), time.process_time()
        ghost.start()
        outcomes = list(
            shared_out(
                client,
                tasks,
                _open,
                sizes=[rng.random() for _ in tasks],
                on_advance=lambda *_: None,
                on_note=notes.append,
                patience=Patience(silent=SILENT_SECONDS),
            )
        )
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        diary.over.set()
        ghost.join()
        written = {int(path.stem) for path in folder.glob("*.json")}
        hosts.close()
        client.close()
        cluster.close()
    again = sum("given to another" in note for note in notes)
    report(tasks, outcomes, written, again, diary, hosts, seconds, took, cpu)


def report(tasks, outcomes, written, again, diary, hosts, seconds, took, cpu) -> None:  # type: ignore[no-untyped-def]
    """Checks what must hold, and prints figures."""
    done = {o.index for o in outcomes if o.result is not None}
    failed = {o.index: o.failure for o in outcomes if o.result is None}
    bad = {i for i, kind in tasks if kind == "bad"}
    twice = {i for i, text in failed.items() if text.startswith(f"was tried {TRIES} times")}
    assert len(outcomes) == len(tasks) == len(done) + len(failed), "an outcome for every run, and no run twice"
    assert set(failed) == twice | (bad - twice), "nothing fails but what is bad or was lost twice"
    assert done <= written, "what is said to be done is on disk"
    begun = sum(map(len, diary.begun.values()))
    assert max(map(len, diary.begun.values())) <= TRIES, "no run is begun more often than it may be"
    assert begun <= len(tasks) + again, "none is begun again but those whose worker or try was lost"
    gaps = [
        later[0] - earlier[1]
        for spans in diary.times.values()
        for earlier, later in zip(sorted(spans), sorted(spans)[1:], strict=False)
    ]
    print(f"{len(tasks)} runs of {seconds:g} s on {hosts.count} workers in {took:.1f} s")
    print(f"workers that vanished: {hosts.vanished}, that came back: {hosts.returned}")
    print(f"done: {len(done)}; not readable: {len(bad)}; lost on {TRIES} workers: {len(twice)}; neither: 0")
    print(f"begun: {begun}, of them {begun - len(tasks)} again, for {again} workers or tries that were lost")
    print(f"a worker between two runs: {1000 * statistics.median(gaps):.0f} ms (median), {max(gaps):.1f} s at most")
    print(f"CPU of scheduler, workers and client: {1000 * cpu / len(tasks):.1f} ms a run")


def _weights() -> tuple[float, ...]:
    return BAD_SHARE, FAULTY_SHARE, HANGING_SHARE, 1 - BAD_SHARE - FAULTY_SHARE - HANGING_SHARE


_TO_OPEN: list[object] = []


def _open() -> object:
    """The work; workers of this process find it here."""
    return _TO_OPEN[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=2.0, help="that a stand-in takes")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two workers that come or go")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    simulate(options.runs, options.workers, options.seconds, options.every, options.seed)


if __name__ == "__main__":
    import scale  # by its name, so that Dask's messages name what is in it instead of carrying it

    scale.main()
