"""Runs shared out among processes: the same picks, and one process's death costs its run only."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal

import numpy as np
import pytest

from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.inference import WindowBars
from jaxcryo.domain import CZII_TYPES
from jaxcryo.picks.copick_json import read_copick_folder

needs_two_cores = pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: range(2))(0)) < 2, reason="processes on CPUs have a core each"
)


def picks_of(dataset: pathlib.Path, engines: pathlib.Path, out: pathlib.Path, *options: str) -> int:
    command = ["--engines", str(engines), "--data", str(dataset), "--out", str(out), "--runs", "PH_000", "PH_001"]
    return infer([*command, *options])


@pytest.mark.slow
@needs_two_cores
def test_two_processes_find_what_one_finds(dataset, engines, tmp_path, capsys) -> None:
    assert picks_of(dataset, engines, tmp_path / "one") == 0
    assert picks_of(dataset, engines, tmp_path / "two", "--processes", "2") == 0
    assert "2 processes share the runs: process 1, process 2" in capsys.readouterr().out
    one, two = (read_copick_folder(tmp_path / name, CZII_TYPES) for name in ("one", "two"))
    assert set(one) == set(two) == {"PH_000", "PH_001"}
    for run, picks in one.items():
        assert len(picks) > 0
        np.testing.assert_allclose(two[run].xyz_angstrom, picks.xyz_angstrom, atol=1e-3)
    files = [(tmp_path / name / "submission.csv").read_text().splitlines() for name in ("one", "two")]
    assert len(files[0]) == len(files[1])


@pytest.mark.slow
@needs_two_cores
def test_a_killed_process_does_not_lose_the_other_run(dataset, engines, tmp_path, capsys, monkeypatch) -> None:
    out, at_work = tmp_path / "picks", set()
    advance = WindowBars.advance

    def kill(bars: WindowBars, index: int, done: int, total: int) -> None:
        advance(bars, index, done, total)
        at_work.add(index)
        if len(at_work) == 2 and not killed:  # both are at their runs
            killed.append(multiprocessing.active_children()[0])
            os.kill(killed[0].pid, signal.SIGKILL)

    killed: list[multiprocessing.Process] = []
    monkeypatch.setattr(WindowBars, "advance", kill)
    assert picks_of(dataset, engines, out, "--processes", "2") == 1
    said = capsys.readouterr()
    assert "1 of 2 runs failed" in said.err and "its process was killed by SIGKILL" in said.err
    assert "the remaining runs go to the other processes" in said.err
    (finished,) = read_copick_folder(out, CZII_TYPES)
    assert finished in (out / "submission.csv").read_text() or not len(read_copick_folder(out, CZII_TYPES)[finished])
    monkeypatch.setattr(WindowBars, "advance", advance)
    assert picks_of(dataset, engines, out, "--processes", "2") == 0
    assert f"{finished}: already done" in capsys.readouterr().out
    assert set(read_copick_folder(out, CZII_TYPES)) == {"PH_000", "PH_001"}


def test_more_processes_than_cores(dataset, engines, tmp_path, capsys) -> None:
    assert picks_of(dataset, engines, tmp_path / "picks", "--processes", "10000") == 2
    assert "--processes is 10000; expected 1 to" in capsys.readouterr().err
    assert not (tmp_path / "picks").exists()
