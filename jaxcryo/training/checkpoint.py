"""Saving and restoring a training: the whole state by Orbax, and the run folder's description."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcryo.config import TrainConfig
from jaxcryo.domain import ParticleType, types_from_json, types_to_json
from jaxcryo.errors import InputError, OutputError
from jaxcryo.files import free_space, reason, write_text
from jaxcryo.serialize import from_plain, to_plain
from jaxcryo.training.state import TrainState

BEST, LAST = "best.safetensors", "last.safetensors"
_CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What a run folder trains: written when it starts, compared when it is continued."""

    config: TrainConfig
    types: tuple[ParticleType, ...]
    fold: int
    train_runs: tuple[str, ...]
    held_out: str
    spacing_angstrom: float
    steps: int | None
    """Asked for by number; None where epochs or minutes set the length."""
    skewness: float | None = None
    """Of the training tomograms' intensities, for telling the opposite contrast."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, the run folder's config.json."""
        return {**to_plain(dataclasses.replace(self, types=())), "types": types_to_json(self.types)}


def describe(folder: pathlib.Path, description: RunDescription) -> bool:
    """Writes the description of a new run; True where the folder already holds this very run.

    Raises:
        InputError: the folder holds a run of another description; the message names the fields that differ.
    """
    new = description.to_json()
    path = folder / _CONFIG
    if not path.exists():
        there = [str(folder / name) for name in (BEST, LAST) if (folder / name).exists()]
        if there:
            raise InputError(f"{', '.join(there)}: there already, of no training that is known; choose another --out")
        write_text(path, json.dumps(new, indent=1) + "\n")
        return False
    old = _read(path)
    now = {**json.loads(json.dumps(new)), "skewness": old.get("skewness")}  # measured, and decides nothing
    differing = [f"{k}: {a!r} there, {b!r} now" for k, a, b in _differences(old, now)]
    if differing:
        raise InputError(
            f"{folder} holds a training of another configuration ({'; '.join(differing)}); "
            "continue it with its own options, or give another folder with --out"
        )
    return True


def read_description(folder: pathlib.Path) -> RunDescription:
    """The description in a run folder.

    Raises:
        InputError: it is missing or cannot be used.
    """
    fields = _read(folder / _CONFIG)
    types = types_from_json(fields.pop("types", ()))
    description = from_plain(RunDescription, {**fields, "types": []}, str(folder / _CONFIG))
    return dataclasses.replace(description, types=types)


class Checkpoints:
    """The folder of whole states of a run; saving goes on in the background. Use it as a context.

    A save that fails leaves the checkpoints before it as they are, and can be tried again.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = (folder / "checkpoints").absolute()
        self._manager = self._opened()
        self._saving: int | None = None
        self._megabytes = 0.0
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> Checkpoints:
        self._unraisable = sys.unraisablehook
        sys.unraisablehook = self._tell_unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):  # what fails here was told by `wait`, or gives way to the error at hand
            self._manager.close()
        sys.unraisablehook = self._unraisable

    def save(self, state: TrainState) -> None:
        """Starts to save a state that is on the host; nothing where this step is saved already.

        Raises:
            OutputError: it cannot be written, or an earlier one could not be. A failure in the background is told by
                `problem` or `wait`.
        """
        self.wait()
        step = int(state.step)
        if self._manager.latest_step() != step:
            self._saving, self._megabytes = step, sum(np.asarray(a).nbytes for a in jax.tree.leaves(state)) / 1e6
            self._attempt(lambda: self._start(step, state))

    def problem(self) -> OutputError | None:
        """Why the save that went on in the background has failed; None where it goes on, or is done."""
        alone = jax.process_count() == 1  # several processes wait together or not at all
        if self._saving is None or not alone or self._manager.is_saving_in_progress():
            return None
        try:
            self.wait()
        except OutputError as error:
            return error
        return None

    def wait(self) -> None:
        """Until what was started is on the disk.

        Raises:
            OutputError: it cannot be written.
        """
        if self._saving is not None:
            self._attempt(self._manager.wait_until_finished)
            self._saving = None

    def latest_step(self) -> int | None:
        """Of the newest whole checkpoint."""
        step: int | None = self._manager.latest_step()
        return step

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest whole state, bit for bit; None where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return None
        shape = jax.tree.map(np.asarray, like)
        restored: TrainState = self._manager.restore(step, args=ocp.args.StandardRestore(shape))
        return restored

    def _start(self, step: int, state: TrainState) -> None:
        # A disk that is full already is not filled up to the last byte with half a checkpoint.
        if shutil.disk_usage(self._folder).free < 1e6 * self._megabytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def _tell_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """After a failure the other files' callbacks find their event loop closed; the failure itself is told by us."""
        if str(unraisable.exc_value) != "Event loop is closed":
            self._unraisable(unraisable)

    def _opened(self) -> ocp.CheckpointManager:
        _orbax_is_quiet()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, cleanup_tmp_directories=True)
        try:
            return ocp.CheckpointManager(self._folder, options=options)
        except OSError as error:
            raise OutputError(f"{self._folder}: cannot be written ({reason(error, self._folder)})") from error

    def _attempt(self, work: Callable[[], object]) -> None:
        """Orbax gives what the system says as various errors, some as text alone; any failure to save is one to us."""
        try:
            work()
        except Exception as error:
            step, self._saving = self._saving, None
            with contextlib.suppress(Exception):
                self._manager.close()
            for half in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(half, ignore_errors=True)
            said = _TENSORSTORE.search(str(error))
            number = int(said[1]) if said else error.errno if isinstance(error, OSError) else None
            why = str(error)[:200] if number is None else os.strerror(number)
            problem = OutputError(
                f"the checkpoint of step {step} ({self._megabytes:,.1f} MB) cannot be written to {self._folder}: {why} "
                f"({free_space(self._folder)})"
            )
            self._manager = self._opened()
            raise problem from error


_TENSORSTORE = re.compile(r"os_error_code='(\d+)'")


def _orbax_is_quiet() -> None:
    """Orbax logs every failure in the background with its traceback before it raises it; it is told once, by us."""
    logging.getLogger("absl").addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return not (record.levelno >= logging.ERROR and "orbax" in record.pathname)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a folder that train.py wrote") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be parsed ({error}); the run's description is damaged") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: expected an object with the run's description")
    return fields


def _differences(old: Any, new: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{name}.{k}".lstrip("."))]
    return [] if old == new else [(name, old, new)]
