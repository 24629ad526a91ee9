"""A progress bar for each run at work, counted in windows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm


class WindowBars(contextlib.AbstractContextManager["WindowBars"]):
    """Bars that appear with a run's first windows and go with the run."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._bars: dict[int, tqdm[Any]] = {}

    def advance(self, index: int, done: int, total: int) -> None:
        """Shows what is done of the run with this index."""
        if index not in self._bars:
            self._bars[index] = tqdm(desc=self._labels[index], total=total, unit="window", mininterval=0.5)
        self._bars[index].update(done - self._bars[index].n)

    def close(self, index: int) -> None:
        """Leaves the run's bar as it is, if it has one."""
        if index in self._bars:
            self._bars.pop(index).close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for index in list(self._bars):
            self.close(index)
