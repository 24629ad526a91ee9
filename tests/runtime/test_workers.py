"""Places for workers, and tasks one after the other."""

from __future__ import annotations

import os
import pathlib
import sys

import pytest

from jaxcryo.errors import InputError
from jaxcryo.runtime.cuda import Gpu
from jaxcryo.runtime.workers import Outcome, in_turn, plan_places

sys.path.append(str(pathlib.Path(__file__).parent))
import worker_tasks


def gpu(index: int) -> Gpu:
    return Gpu(index=index, name="Tesla T4", compute_capability="7.5", memory_bytes=1, driver="12.4")


def test_in_turn_each_has_its_outcome() -> None:
    advanced: list[tuple[int, int, int]] = []
    notes: list[str] = []
    outcomes = in_turn(
        ["a", "bad"], worker_tasks.open_work, on_advance=lambda *args: advanced.append(args), on_note=notes.append
    )
    assert list(outcomes) == [Outcome(index=0, result="a done"), Outcome(index=1, failure="cannot be used")]
    assert advanced == [(0, 2, 2), (1, 2, 2)]
    assert notes == ["began a", "began bad"]


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


def test_workers_on_the_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(5)))
    assert [p.cores for p in plan_places(2, (), tasks=9)] == [{0, 1}, {2, 3, 4}]
    assert len(plan_places(None, (), tasks=9)) == 1
    assert len(plan_places(5, (), tasks=0)) == 1
    with pytest.raises(InputError, match=r"--workers.*\b6\b.*\b5\b"):
        plan_places(6, (), tasks=9)
    with pytest.raises(InputError, match=r"--workers.*\b3\b.*\b2\b"):
        plan_places(3, [gpu(0), gpu(1)], tasks=9)
    with pytest.raises(InputError, match=r"--workers.*\b0\b"):
        plan_places(0, (), tasks=9)
