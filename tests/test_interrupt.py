"""Ctrl-C ends a process at once, with one line and its code, wherever it is."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

HEAD = """
import ctypes, multiprocessing, os, pathlib, signal, sys, threading, time
from jaxcryo.files import atomic_path
from jaxcryo.interrupt import ends_at_once, first_one_is_ours
from jaxcryo.runtime.workers import Place

# As in a terminal: what a shell starts in the background ignores Ctrl-C, these tests' own process and its children too.
signal.signal(signal.SIGINT, signal.default_int_handler)

def native():
    left = 60
    while left:  # a signal ends C's sleep early, and then the work would seem to be done
        left = ctypes.CDLL(None).sleep(left)

def work(task, listener):
    global lock
    lock = multiprocessing.Lock()  # as some modules make one when they are imported
    listener.advance(1, 2)
    native()

def open_work():
    return work

at_work = set()
def announce(index, done, total):
    at_work.add(index)
    if len(at_work) == 2:
        print("ready", *(child.pid for child in multiprocessing.active_children()), flush=True)

def main(body):
    with ends_at_once(message="interrupted; completed files were kept"):
        body()
"""
BODIES = {
    "python": "def body():\n    print('ready', flush=True)\n    while True: pass\n",
    "native": (
        "def body():\n    with atomic_path(sys.argv[1]) as fresh:\n        fresh.write_text('half')\n"
        "        print('ready', flush=True)\n        native()\n"
    ),
    "native threads": (
        "def body():\n    for _ in range(4): threading.Thread(target=native).start()\n"
        "    print('ready', flush=True)\n    native()\n"
    ),
    "workers": (
        "def body():\n"
        "    from jaxcryo.runtime.cluster import local_cluster\n"
        "    from jaxcryo.runtime.sharing import shared_out\n"
        "    with local_cluster([Place(name='a'), Place(name='b')]) as client:\n"
        "        list(shared_out(client, [1, 2], open_work, sizes=[1, 1], on_advance=announce, on_note=print))\n"
    ),
}


@contextlib.contextmanager
def started(folder: pathlib.Path, body: str) -> Iterator[subprocess.Popen[str]]:
    """Does not outlive the test that it fails."""
    script = folder / "work.py"
    script.write_text(f"{HEAD}\n{body}\nif __name__ == '__main__':\n    main(body)\n")
    root = str(pathlib.Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, str(script), str(folder / "out.txt")],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "kind", [*(k for k in BODIES if k != "workers"), pytest.param("workers", marks=pytest.mark.slow)]
)
def test_ctrl_c_is_one_line_and_130(tmp_path, kind) -> None:
    with started(tmp_path, BODIES[kind]) as process:
        ready, *children = process.stdout.readline().split()
        assert ready == "ready"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert err == "interrupted; completed files were kept\n"
        assert time.monotonic() - began < 10
        assert [p.name for p in tmp_path.iterdir()] == ["work.py"]
        assert len(children) == (2 if kind == "workers" else 0)
        for child in children:
            assert not pathlib.Path("/proc", child).exists() or not pathlib.Path("/proc").exists()


def test_the_first_one_can_be_somebody_s(tmp_path) -> None:
    body = (
        "import signal\n"
        "def body():\n    seen = []\n    signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "    with first_one_is_ours():\n        print('ready', flush=True)\n        while not seen: time.sleep(0.01)\n"
        "        print('saved', flush=True)\n        native()\n"
    )
    with started(tmp_path, body) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "saved\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130


def test_a_process_that_is_being_started_is_told_all(tmp_path) -> None:
    body = (
        "from jaxcryo.interrupt import starts_a_process\n"
        "def body():\n    with starts_a_process():\n        print('ready', flush=True)\n        time.sleep(0.5)\n"
        "        pathlib.Path(sys.argv[1]).touch()\n    native()\n"
    )
    with started(tmp_path, body) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130 and (tmp_path / "out.txt").exists()
