"""Progress for people: a bar on a terminal, and elsewhere plain lines at growing intervals, which do not fill a log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from tqdm import tqdm

FIRST_SECONDS = 10.0
_GROWTH = 1.5
_LONGEST_SECONDS = 1800.0
_LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} left{postfix}"


class Progress(tqdm):  # type: ignore[misc]
    """A `tqdm` bar, used as one; lines are written after 10 s, 15 s, 23 s and so on, and the last when it is closed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        file = options.get("file") or sys.stderr
        self._in_lines = not (hasattr(file, "isatty") and file.isatty())
        self._due = FIRST_SECONDS
        self._lines = 0
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draws the bar, or writes a line where one is due."""
        if not self._in_lines:
            super().display(msg, pos)
            return
        elapsed = self.format_dict["elapsed"]
        if elapsed >= self._due:
            self._due = elapsed + min((_GROWTH - 1) * elapsed, _LONGEST_SECONDS)
            self._write_line()

    def clear(self, nolock: bool = False) -> None:
        """Makes room for other output where there is a bar."""
        if not self._in_lines:
            super().clear(nolock)

    def close(self) -> None:
        """Leaves the bar as it is, or writes a last line after others."""
        if not self._in_lines:
            super().close()
        elif not self.disable:
            self.disable: bool = True
            self._decr_instances(self)
            if self._lines:
                self._write_line()

    def _write_line(self) -> None:
        self._lines += 1
        form = {"bar_format": _LINE} if self.total else {"ncols": 0}
        self.fp.write(self.format_meter(**{**self.format_dict, **form}) + "\n")
        self.fp.flush()


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
