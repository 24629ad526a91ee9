"""The progress of an inference."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from jaxcryo.progress import Progress


class RunsBar(contextlib.AbstractContextManager["RunsBar"]):
    """One bar for all runs, each counted by its finished share; a single run's bar counts windows, or `unit`s."""

    def __init__(self, labels: Sequence[str], *, doing: str = "picking", unit: str = "window") -> None:
        self._label = labels[0] if len(labels) == 1 else ""
        self._doing, self._unit = doing, unit
        self._done = dict.fromkeys(range(len(labels)), 0.0)
        self._bar: Progress | None = None

    def advance(self, index: int, done: int, total: int) -> None:
        """Shows how far the run with this index is."""
        if self._label:
            self._show(done, desc=self._label, total=total, unit=self._unit)
        else:
            self._done[index] = done / max(total, 1)
            self._show(round(sum(self._done.values()), 1), desc=self._doing, total=len(self._done), unit="run")

    def finish(self, index: int) -> None:
        """The run with this index is done, or has failed."""
        if not self._label:
            self.advance(index, 1, 1)

    def _show(self, done: float, **options: Any) -> None:
        if self._bar is None:
            self._bar = Progress(mininterval=0.5, **options)
        self._bar.update(done - self._bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
