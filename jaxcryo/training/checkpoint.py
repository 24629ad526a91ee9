"""Saving and restoring a training's whole state, with Orbax."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from types import TracebackType

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxcryo.errors import InputError, OutputError
from jaxcryo.files import free_space, reason
from jaxcryo.training import distributed
from jaxcryo.training.run_folder import RunFolder
from jaxcryo.training.state import TrainState


class Checkpoints:
    """The checkpoint folder of a run; saving goes on in the background. Use it as a context manager.

    A save that fails leaves the checkpoints before it as they are, and can be tried again.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder.checkpoints.absolute()
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
        """Starts to save a state that is on the host; does nothing if this step is already saved.

        Raises:
            OutputError: it cannot be written, or an earlier one could not be. A failure in the background shows in
                `problem` or `wait`.
        """
        self.wait()
        step = int(state.step)
        if self._manager.latest_step() != step:
            self._saving, self._megabytes = step, sum(np.asarray(a).nbytes for a in jax.tree.leaves(state)) / 1e6
            self._attempt(lambda: self._start(step, state))

    def problem(self) -> OutputError | None:
        """Why the save in the background failed; None if it goes on or is done."""
        alone = jax.process_count() == 1  # several processes wait together or not at all
        if self._saving is None or not alone or self._manager.is_saving_in_progress():
            return None
        try:
            self.wait()
        except OutputError as error:
            return error
        return None

    def wait(self) -> None:
        """Waits until the save that was started is on the disk.

        Raises:
            OutputError: it cannot be written.
        """
        if self._saving is not None:
            self._attempt(self._manager.wait_until_finished)
            self._saving = None

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        step: int | None = self._manager.latest_step()
        return step

    def restore(self, like: TrainState, say: Callable[[str], None]) -> TrainState | None:
        """The newest complete state, bit for bit; None if none was saved.

        A damaged one is moved aside, and `say` is told which steps are lost.

        Raises:
            InputError: all of them are damaged.
        """
        shape = jax.tree.map(np.asarray, like)
        steps: list[int] = sorted(self._manager.all_steps(), reverse=True)
        damaged: list[str] = []
        for step in steps:
            state: TrainState | None = None
            try:
                state = self._manager.restore(step, args=ocp.args.StandardRestore(shape))
            except Exception as error:  # Orbax and TensorStore raise many kinds for a file that is damaged or missing
                damaged.append(f"{self._folder / str(step)} ({_first_line(error)})")
            if distributed.agree(int(state is None))[0]:  # all processes go on from one step
                continue
            if damaged:
                self._move_aside(steps[: steps.index(step)])
                say(
                    f"warning: damaged checkpoints: {', '.join(damaged)}. Going on from step {step}: steps {step + 1} "
                    f"to {steps[0]} are computed again; the damaged files are kept in {self._aside}"
                )
            return state
        if steps:
            raise InputError(
                f"no checkpoint can be read: {', '.join(damaged)}. Restore one from a copy; or delete "
                f"{self._folder} to start again from step 0 with the same command"
            )
        return None

    @property
    def _aside(self) -> pathlib.Path:
        return self._folder.with_name("damaged-checkpoints")

    def _move_aside(self, steps: list[int]) -> None:
        distributed.meet("damaged checkpoints were looked at")
        if distributed.is_first():
            self._aside.mkdir(exist_ok=True)
            for step in steps:
                shutil.rmtree(self._aside / str(step), ignore_errors=True)
                (self._folder / str(step)).rename(self._aside / str(step))
        distributed.meet("damaged checkpoints are moved aside")
        self._manager.reload()

    def _start(self, step: int, state: TrainState) -> None:
        # Half a checkpoint must not fill the disk to the last byte.
        if shutil.disk_usage(self._folder).free < 1e6 * self._megabytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def _tell_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """After a failure the other files' callbacks find their event loop closed; we report the failure itself."""
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
        """Orbax reports system errors in various ways, some only as text; we treat any failure to save alike."""
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
    """Orbax logs every failure in the background with a traceback before it raises it; we report it once."""
    logging.getLogger("absl").addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return not (record.levelno >= logging.ERROR and "orbax" in record.pathname)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
