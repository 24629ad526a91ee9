"""What a training writes to disk, in which order, and what happens if it cannot."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from jaxcryo.errors import OutputError
from jaxcryo.training import distributed
from jaxcryo.training.checkpoint import Checkpoints
from jaxcryo.training.record import SCORE_DIGITS, Record
from jaxcryo.training.run_folder import RunFolder
from jaxcryo.training.state import TrainState
from jaxcryo.training.validation import Validation
from jaxcryo.weights import TrainedModel, save_model


class RunWriter:
    """Writes models, then the tables' rows, then the state.

    In this order a checkpoint never exists without what came before it. Whatever cannot be written waits in memory for
    the next save, so nothing is lost once a full disk has space again.
    """

    def __init__(self, folder: RunFolder, record: Record, checkpoints: Checkpoints, say: Callable[[str], None]) -> None:
        self._folder, self._record, self._checkpoints, self._say = folder, record, checkpoints, say
        self._models: dict[pathlib.Path, TrainedModel] = {}
        self._results: list[tuple[int, Validation]] = []
        self.best = record.best_score()

    def validated(self, step: int, result: Validation, model: TrainedModel) -> None:
        """A model and its validation, for the next save."""
        self._results.append((step, result))
        self._models[self._folder.last] = model
        score = round(result.chosen.weighted_f4_of_known, SCORE_DIGITS)  # as a training that goes on reads it back
        if score >= self.best:
            self.best = score
            self._models[self._folder.best] = model

    def save(self, state: TrainState) -> None:
        """Writes what is waiting, and starts to save the state.

        Raises:
            OutputError: something cannot be written.
        """
        try:
            self._checkpoints.wait()
        except OutputError as error:  # of an earlier state, which this one replaces
            self._warn(error)
        problem = None
        if distributed.is_first():
            try:
                self._write()
            except OutputError as error:
                problem = error
        # Either all processes take part in saving, or none.
        if distributed.agree(int(problem is not None))[0]:
            raise problem or OutputError("the first process cannot write")
        self._checkpoints.save(state)

    def save_if_possible(self, state: TrainState) -> None:
        """As `save`, but the training goes on if it fails; the next save tries again."""
        try:
            self.save(state)
        except OutputError as error:
            self._warn(error)

    def look(self) -> None:
        """Warns if a save in the background has failed."""
        problem = self._checkpoints.problem()
        if problem is not None:
            self._warn(problem)

    def finish(self, state: TrainState) -> None:
        """Saves, and waits until all is on the disk; raises as `save` does."""
        self.save(state)
        self._checkpoints.wait()

    def last_good(self) -> str:
        """A sentence on the step that the training can resume from."""
        step = self._checkpoints.latest_step()
        if step is None:
            return f"there is no checkpoint in {self._folder} yet"
        return f"the last good checkpoint in {self._folder} is that of step {step}"

    def _warn(self, error: OutputError) -> None:
        self._say(f"warning: {error}. Training continues and will retry at the next save; {self.last_good()}")

    def _write(self) -> None:
        for path, model in list(self._models.items()):
            save_model(path, model)
            del self._models[path]
        for step, result in self._results:
            self._record.validation(step, result)
        self._results.clear()
        self._record.flush()
