"""Trainings as processes: several that train as one, and one that is killed again and again."""

import multiprocessing
import multiprocessing.process
import os
import pathlib
import random
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxcryo.cli.train import main
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


@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(dataset, tmp_path, cache, monkeypatch) -> None:
    """The processes are forked from one that has imported everything, which is most of a start."""
    for name, value in {**cache, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}.items():
        monkeypatch.setenv(name, value)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["jaxcryo.cli.training"])

    def begin(out: pathlib.Path) -> multiprocessing.process.BaseProcess:
        command = ["--arch", "yu4u", "--size", "tiny", "--fold", "0", "--data", str(dataset), "--out", str(out)]
        process = forks.Process(target=main, args=([*command, "--steps", str(STEPS), "--save-minutes", "0.003"],))
        process.start()
        return process

    def finished(process: multiprocessing.process.BaseProcess, out: pathlib.Path) -> None:
        process.join(600)
        assert (out / "result.json").exists()

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    finished(begin(straight), straight)
    chance, table, kills, in_saves = random.Random(0), killed / "metrics.csv", 0, 0
    for n in range(KILLS):
        before = table.read_text() if table.exists() else ""
        process = begin(killed)
        if n % 4:  # every fourth is killed while it starts
            deadline = time.monotonic() + 300
            while process.is_alive() and time.monotonic() < deadline:
                if table.exists() and len(table.read_text()) > len(before):
                    break
                time.sleep(0.02)
        if n % 4 == 3:  # and another one in the middle of a save
            deadline = time.monotonic() + 20
            while process.is_alive() and time.monotonic() < deadline and not _half_saved(killed):
                pass
        else:
            time.sleep(chance.uniform(0, 0.5))
        in_saves += bool(_half_saved(killed))
        if not process.is_alive():  # it came to its end
            break
        process.kill()
        process.join()
        kills += 1
    finished(begin(killed), killed)
    assert kills >= KILLS // 2 and in_saves >= 2
    assert_same(straight, killed)
    rows = table.read_text().splitlines()[1:]
    assert [int(r.split(",")[0]) for r in rows] == list(range(1, STEPS + 1))


def _half_saved(out: pathlib.Path) -> list[pathlib.Path]:
    return list((out / "checkpoints").glob("*tmp*"))
