"""A full disk: what is there stays, the rest is written later, and the training ends as on any other disk."""

import dataclasses
import errno
import os
import pathlib
import shutil
import time

import jax
import numpy as np
import pytest

from jaxcryo import files as atomic
from jaxcryo.config import OptimConfig
from jaxcryo.errors import OutputError
from jaxcryo.training import checkpoint, run_writer
from jaxcryo.training.append_log import AppendLog
from jaxcryo.training.checkpoint import Checkpoints
from jaxcryo.training.fit import Length, Outcome, TrainingStopped, fit
from jaxcryo.training.run_folder import RunFolder
from jaxcryo.training.source import source_of
from jaxcryo.training.state import TrainState, initial_state
from jaxcryo.weights import load_model


def train(folder: pathlib.Path, description, examples, say=lambda _: None) -> Outcome:
    """Four steps with a save after each."""
    source = source_of(examples[1:], description.config)
    return fit(source, examples[0], description, folder, length=Length(steps=4), save_every_seconds=0, say=say)


class Disk:
    """Every way in which a training writes fails while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        for module, name in ((run_writer, "save_model"), (AppendLog, "_write")):
            monkeypatch.setattr(module, name, self._guarded(getattr(module, name), returns=module is AppendLog))
        manager = checkpoint.ocp.CheckpointManager
        monkeypatch.setattr(manager, "save", self._guarded(manager.save))

    def _guarded(self, work, *, returns: bool = False):
        def guarded(*args, **options):
            if not self.full:
                return work(*args, **options)
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if returns:
                return error if args[0]._waiting else None
            if work.__name__ == "save_model":
                raise OutputError(f"{args[0]}: cannot be written ({atomic.reason(error, args[0])})")
            raise error

        return guarded


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_changes_nothing(tmp_path, description, examples, monkeypatch) -> None:
    straight = train(tmp_path / "straight", description, examples)
    disk, said = Disk(monkeypatch), []

    def say(text: str) -> None:
        said.append(text)
        disk.full = len([t for t in said if "warning" in t]) < 2 and "validation took" not in text

    out = tmp_path / "full"
    ended = train(out, description, examples, say=say)
    assert ended.result == straight.result
    warnings = [t for t in said if "warning" in t]
    assert len(warnings) == 2
    assert "No space left on device" in warnings[0] and "MB free" in warnings[0] and "no checkpoint" in warnings[0]
    for name in ("metrics.csv", "validation.csv"):
        a, b = ((tmp_path / f / name).read_text().splitlines() for f in ("straight", "full"))
        assert [r.split(",")[:4] for r in a] == [r.split(",")[:4] for r in b]
    assert_same(tmp_path / "straight", out)


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_end_is_told_and_the_same_command_goes_on(
    tmp_path, description, examples, monkeypatch
) -> None:
    straight = train(tmp_path / "straight", description, examples)
    disk, out = Disk(monkeypatch), tmp_path / "full"

    def say(text: str) -> None:
        disk.full = disk.full or text.startswith("step 4")

    with pytest.raises(TrainingStopped, match=r"\b4 steps.*No space.*step 4"):
        train(out, description, examples, say=say)
    assert not (out / "result.json").exists()
    disk.full = False
    said: list[str] = []
    again = train(out, description, examples, say=said.append)
    assert "step 4 of 4" in said[0]
    assert again.result == straight.result
    assert_same(tmp_path / "straight", out)


def test_a_save_that_fails_in_the_background_is_told_and_the_next_one_works(tmp_path, monkeypatch) -> None:
    before = jax.tree.map(
        np.asarray,
        initial_state({"a": np.arange(9.0)}, {}, total_steps=3, config=OptimConfig(), half_precision=False),
    )

    def state(step: int) -> TrainState:
        return dataclasses.replace(before, step=np.int32(step))

    wait = checkpoint.ocp.CheckpointManager.wait_until_finished

    def no_space(manager) -> None:
        wait(manager)
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 174 bytes to file 11 [os_error_code='28']")

    with Checkpoints(RunFolder(tmp_path)) as checkpoints:
        checkpoints.save(state(1))
        checkpoints.wait()
        checkpoints.save(state(2))
        with monkeypatch.context() as broken:
            broken.setattr(checkpoint.ocp.CheckpointManager, "wait_until_finished", no_space)
            while (problem := checkpoints.problem()) is None:
                time.sleep(0.01)
        assert "step 2" in str(problem) and "No space left on device" in str(problem)
        assert checkpoints.problem() is None
        checkpoints.save(state(3))
        checkpoints.wait()
        assert checkpoints.latest_step() == 3
        restored = checkpoints.restore(before, print)
    assert restored is not None and int(restored.step) == 3


def test_half_a_row_is_not_left_behind(tmp_path, monkeypatch) -> None:
    table = AppendLog(tmp_path / "rows.csv")
    table.add(b"1,2\n")
    opened = pathlib.Path.open

    class Short:
        """A file on a disk with three bytes left."""

        def __init__(self, file) -> None:
            self._file, self._left = file, 3

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            if self._left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written, self._left = self._file.write(data[: self._left]), 0
            return written

    with monkeypatch.context() as full:
        full.setattr(pathlib.Path, "open", lambda *args, **options: Short(opened(*args, **options)))
        table.add(b"3,4\n")
        with pytest.raises(OutputError, match=r"rows\.csv.*No space left on device"):
            table.flush()
    assert table.path.read_bytes() == b"1,2\n"
    table.add(b"5,6\n")
    assert table.path.read_bytes() == b"1,2\n3,4\n5,6\n"


def test_free_space_is_that_of_the_nearest_folder(tmp_path) -> None:
    free = shutil.disk_usage(tmp_path).free / 1e6
    assert float(atomic.free_space(tmp_path / "a" / "b").split()[0].replace(",", "")) == pytest.approx(free, rel=0.1)


def assert_same(a: pathlib.Path, b: pathlib.Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        first, second = load_model(a / name), load_model(b / name)
        assert first.types == second.types
        assert all(np.array_equal(first.params[k], second.params[k]) for k in first.params)
        assert all(np.array_equal(first.stats[k], second.stats[k]) for k in first.stats)
