"""Runs shared out among workers: the same picks from whoever makes them, and nothing lost with those that die."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import pytest

from jaxcryo.cli import crew
from jaxcryo.cli.crew import choose_there
from jaxcryo.cli.infer import ModelOptions
from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.picker import Job, open_picker_elsewhere
from jaxcryo.cli.plan import DEMO_MODELS
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.picks.folder import Settings
from jaxcryo.progress import RunsBar
from jaxcryo.runtime import cluster
from jaxcryo.runtime.manifest import read_manifest
from jaxcryo.runtime.sharing import _Sharing
from jaxcryo.stores.address import Address
from jaxcryo.tomogram import ome_zarr
from jaxcryo.tomogram.volumes import Reading, write_ome_zarr

ROOT = pathlib.Path(__file__).parents[2]
RUNS = {"PH_000", "PH_001"}
needs_two_cores = pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: range(2))(0)) < 2, reason="workers on CPUs have a core each"
)


def test_sizes_are_told_without_looking_for_chunks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ome_zarr(tmp_path / "a.zarr", np.zeros((4, 6, 8), np.float32), (10.0, 10.0, 10.0), levels=1)
    (tmp_path / "b.mrc").write_bytes(bytes(100))
    (tmp_path / "damaged.zarr").mkdir()
    (tmp_path / "damaged.zarr" / ".zattrs").write_text("no JSON")
    monkeypatch.setattr(ome_zarr, "check_chunks", None)
    assert crew._size(tmp_path / "a.zarr", 0) == 4 * 6 * 8
    assert crew._size(tmp_path / "b.mrc", 0) == 100
    for nothing in (tmp_path / "damaged.zarr", tmp_path / "none.mrc", Address("s3://bucket/a.zarr")):
        assert crew._size(nothing, 0) == 0
    assert crew._size(tmp_path / "a.zarr", 7) == 0


def picks_of(dataset: pathlib.Path, engines: pathlib.Path, out: pathlib.Path, *options: str) -> int:
    command = ["--engines", str(engines), "--data", str(dataset), "--out", str(out), "--runs", *sorted(RUNS)]
    return infer([*command, *options])


@pytest.fixture(scope="module")
def alone(dataset, engines, tmp_path_factory) -> pathlib.Path:
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone") / "picks"
    assert picks_of(dataset, engines, out) == 0
    return out


def check_same(out: pathlib.Path, alone: pathlib.Path) -> None:
    found, expected = (read_copick_folder(folder, CZII_TYPES) for folder in (out, alone))
    assert set(found) == set(expected) == RUNS
    for run, picks in expected.items():
        assert len(picks) > 0
        np.testing.assert_allclose(found[run].xyz_angstrom, picks.xyz_angstrom, atol=1e-3)
    assert len((out / "submission.csv").read_text().splitlines()) == len(
        (alone / "submission.csv").read_text().splitlines()
    )
    assert not list(out.rglob(".*-new-*"))


@pytest.fixture
def at_first_news(monkeypatch) -> Callable[[Callable[[], object]], None]:
    """Has something done once, when the first run at work says how far it is."""

    def arrange(act: Callable[[], object]) -> None:
        advance, acts = RunsBar.advance, [act]

        def hear(bar: RunsBar, index: int, done: int, total: int) -> None:
            advance(bar, index, done, total)
            if acts:
                acts.pop()()

        monkeypatch.setattr(RunsBar, "advance", hear)

    return arrange


@pytest.mark.slow
@needs_two_cores
def test_a_killed_worker_loses_nothing(dataset, engines, tmp_path, capsys, alone, at_first_news) -> None:
    at_first_news(lambda: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL))
    assert picks_of(dataset, engines, tmp_path / "picks", "--workers", "2") == 0
    said = capsys.readouterr()
    assert "2 workers share the runs: worker 1, worker 2" in said.out
    assert "died or went away" in said.err
    check_same(tmp_path / "picks", alone)
    assert picks_of(dataset, engines, tmp_path / "picks", "--workers", "2") == 0
    assert capsys.readouterr().out.count("already done") == 2


@pytest.mark.slow
@needs_two_cores
def test_a_tomogram_split_over_two_workers_is_the_whole(
    dataset, engines, tmp_path, capsys, alone, at_first_news
) -> None:
    at_first_news(lambda: os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL))
    assert picks_of(dataset, engines, tmp_path / "picks", "--workers", "2", "--split-z", "2") == 0
    said = capsys.readouterr()
    assert "died or went away" in said.err
    assert not (tmp_path / "picks" / "parts").exists()
    for file in (alone / "ExperimentRuns").rglob("*.json"):
        assert (tmp_path / "picks" / file.relative_to(alone)).read_bytes() == file.read_bytes()


@pytest.mark.slow
@needs_two_cores
def test_thresholds_over_all_runs_are_put_into_effect_by_the_workers(dataset, tmp_path, monkeypatch) -> None:
    """Also by those that are started for nothing else, where all is picked."""
    for name in ("one", "two"):
        assert picks_of(dataset, DEMO_MODELS, tmp_path / name, "--effort", "fast") == 0
    pictures = {run: (tmp_path / "two" / "pictures" / f"{run}.png") for run in RUNS}
    for picture in pictures.values():
        picture.unlink()
    for file in (tmp_path / "two" / "ExperimentRuns").rglob("jaxcryo_0_*.json"):
        file.write_text(file.read_text().replace('"points"', '"other"'))
    (tmp_path / "two" / "decision.json").unlink()
    monkeypatch.setattr(crew, "in_turn", None)
    assert picks_of(dataset, DEMO_MODELS, tmp_path / "two", "--effort", "fast", "--workers", "2") == 0
    files = [f.relative_to(tmp_path / "one") for f in (tmp_path / "one").rglob("*") if f.suffix in (".json", ".csv")]
    assert len(files) > 12
    for name in files:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    assert all(picture.is_file() for picture in pictures.values())


@contextlib.contextmanager
def dask(*arguments: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a program of Dask as often as asked to, and ends what it started."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "dask", *arguments, *more],
                env=environment,
                cwd="/",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_cluster_whose_workers_come_and_go(dataset, engines, tmp_path, capsys, monkeypatch, alone) -> None:
    """Each run loses the worker that is at it first; a worker that comes late does what is left."""
    file = str(tmp_path / "scheduler.json")
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere
    submit, advance = _Sharing._submit, RunsBar.advance
    given: dict[int, str] = {}
    killed: dict[int, str] = {}

    def give(sharing, member, *arguments) -> None:
        if member.index is not None:
            given[member.index] = member.name
        submit(sharing, member, *arguments)

    with (
        dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file) as scheduler,
        dask("worker", "--scheduler-file", file, "--nthreads", "1", "--memory-limit", "0", "--no-nanny") as worker,
    ):
        scheduler()
        workers = {name: worker("--name", name) for name in ("first", "second")}

        def hear(bar: RunsBar, index: int, done: int, total: int) -> None:
            advance(bar, index, done, total)
            if index not in killed:
                killed[index] = given[index]
                workers[given[index]].kill()
                if "late" not in workers:
                    workers["late"] = worker("--name", "late")

        monkeypatch.setattr(_Sharing, "_submit", give)
        monkeypatch.setattr(RunsBar, "advance", hear)
        assert picks_of(dataset, engines, pathlib.Path("picks"), "--scheduler", file) == 0
    said = capsys.readouterr().err
    assert len(killed) == 2 and all(f"{name} died or went away" in said for name in killed.values())
    check_same(tmp_path / "picks", alone)


def test_other_models_or_another_precision_are_refused_by_name(engines) -> None:
    entries = read_manifest(engines)
    job = Job(
        folder=engines,
        entries=entries,
        backend="flax",
        precision="auto",
        types=CZII_TYPES,
        out=pathlib.Path("picks"),
        reading=Reading(),
        settings=Settings(),
    )
    other = dataclasses.replace(entries[1], weights_sha256="0" * 64)
    with pytest.raises(InputError, match=f"{other.name} .*copy the folder"):
        open_picker_elsewhere(dataclasses.replace(job, entries=(entries[0], other)))
    other = dataclasses.replace(entries[1], precision="bfloat16")
    with pytest.raises(InputError, match=f"{other.name} in float32; expected bfloat16"):
        open_picker_elsewhere(dataclasses.replace(job, entries=(entries[0], other)))


@pytest.mark.parametrize("fault", [ModuleNotFoundError("No module named 'jaxcryo'"), InputError("no engine fits")])
def test_a_worker_that_cannot_choose_is_said(engines, fault) -> None:
    client = mock.Mock()
    client.submit.return_value.result.side_effect = fault
    with pytest.raises(InputError, match=str(fault)):
        choose_there(client, ModelOptions(), engines, read_manifest(engines))


def test_the_bar_counts_runs_by_what_is_done_of_them() -> None:
    with RunsBar(["a", "b", "c", "d"]) as bar:
        bar.advance(0, 5, 10)
        bar.advance(1, 0, 0)
        bar.finish(2)
        assert bar._bar is not None and bar._bar.n == 1.5 and bar._bar.total == 4


def test_more_workers_than_cores(dataset, engines, tmp_path, capsys) -> None:
    assert picks_of(dataset, engines, tmp_path / "picks", "--workers", "10000") == 2
    assert "--workers is 10000; expected 1 to" in capsys.readouterr().err
    assert not (tmp_path / "picks").exists()


def test_a_scheduler_has_its_own_workers(dataset, engines, tmp_path, capsys) -> None:
    assert picks_of(dataset, engines, tmp_path / "picks", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9") == 2
    said = capsys.readouterr().err
    assert "--workers" in said and "--scheduler" in said


@pytest.mark.parametrize("scheduler", ["tcp://127.0.0.1:9", "missing.json", "nonsense"])
def test_a_scheduler_that_is_not_there(dataset, engines, tmp_path, capsys, monkeypatch, scheduler) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.1)
    assert picks_of(dataset, engines, tmp_path / "picks", "--scheduler", scheduler) == 2
    assert f"--scheduler is {scheduler}" in capsys.readouterr().err
    assert not (tmp_path / "picks").exists()
