"""Trainings as processes: several that train as one, and one that is killed again and again."""

import os
import pathlib
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from toys import TOY

from jaxcryo.models import registry
from jaxcryo.phantom import PhantomConfig, write_dataset
from jaxcryo.weights import load_model

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
KILLS, STEPS = 20, 160


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("processes") / "data"
    # An epoch of 24 windows and 6 steps, so that not every step is followed by a validation.
    write_dataset(folder, PhantomConfig(shape_zyx=(40, 104, 104)), runs=2)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled programs are kept between processes, so that a restart takes seconds."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(
    dataset: pathlib.Path, out: pathlib.Path, steps: int, environment: dict[str, str], *options: str
) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), "--arch", "yu4u", "--size", "tiny", "--fold", "0"]
    command += ["--data", str(dataset), "--out", str(out), "--steps", str(steps), *options]
    return subprocess.Popen(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err


def assert_same(a: pathlib.Path, b: pathlib.Path) -> None:
    first, second = (load_model(f / "last.safetensors") for f in (a, b))
    for arrays, others in ((first.params, second.params), (first.stats, second.stats)):
        for name, value in arrays.items():
            np.testing.assert_array_equal(value, others[name], err_msg=name)


def test_two_processes_train_as_one_with_two_devices(dataset, tmp_path, cache) -> None:
    options = ("--sync-batch-norm",)
    together = start(
        dataset, tmp_path / "one", 6, {**cache, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, *options
    )
    finish(together)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**cache, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    both = [start(dataset, tmp_path / "two", 6, {**shared, "JAX_PROCESS_ID": str(i)}, *options) for i in (0, 1)]
    for process in both:
        finish(process)
    assert_same(tmp_path / "one", tmp_path / "two")


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(tmp_path, cache, monkeypatch) -> None:
    """A toy network, whose steps take no time."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register(TOY)  # to read what the processes write
    data, output = tmp_path / "data", tmp_path / "output.txt"
    write_dataset(data, PhantomConfig(shape_zyx=(24, 80, 80)), runs=2)
    environment = {**os.environ, **cache, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT / "tests")}

    def begin(out: pathlib.Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "tests" / "toys.py"), "--fold", "0", "--data", str(data)]
        command += ["--out", str(out), "--steps", str(STEPS), "--save-minutes", "0.003"]
        with output.open("ab") as file:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    def finished(process: subprocess.Popen[bytes]) -> None:
        assert process.wait(600) == 0, output.read_text()[-3000:]

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finished(begin(straight))
    chance, table, kills, in_saves = random.Random(0), killed / "metrics.csv", 0, 0
    for n in range(KILLS):
        before = table.read_text() if table.exists() else ""
        process = begin(killed)
        if n % 4:  # every fourth is killed while it starts
            begun = _wait(process, 300, lambda before=before: table.exists() and len(table.read_text()) > len(before))
            assert begun or process.poll() is not None, output.read_text()[-3000:]
        if n % 4 == 3:  # and another one in the middle of a save
            _wait(process, 20, lambda: bool(_half_saved(killed)), every=0)
        else:
            time.sleep(chance.uniform(0, 0.5 if n % 4 else 8))
        in_saves += bool(_half_saved(killed))
        if process.poll() is not None:  # it came to its end
            break
        process.kill()
        process.wait()
        kills += 1
    finished(begin(killed))
    assert kills >= KILLS // 2 and in_saves >= 2
    assert_same(straight, killed)
    rows = table.read_text().splitlines()[1:]
    assert [int(r.split(",")[0]) for r in rows] == list(range(1, STEPS + 1))


def _wait(process: subprocess.Popen[bytes], seconds: float, until: Callable[[], bool], every: float = 0.02) -> bool:
    """Whether that came about while the process was there, in time."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if until():
            return True
        time.sleep(every)
    return False


def _half_saved(out: pathlib.Path) -> list[pathlib.Path]:
    return list((out / "checkpoints").glob("*tmp*"))
