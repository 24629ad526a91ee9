"""Output that never stops the work, even if it is closed, full, cut off, or cannot show a character."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

_PLAIN = str.maketrans({"Å": "A", "å": "a", "×": "x", "–": "-", "±": "+-", "…": "...", "σ": "sigma", "²": "^2"})


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Within it, output that cannot be written is dropped. Neither the work nor the exit code changes.

    Nothing is said if the reader has gone (`| head -1`); a full disk is reported once on standard error.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    error = _Forgiving(_opened(sys.stderr, 2), None)
    sys.stdout, sys.stderr = _Forgiving(_opened(sys.stdout, 1), error), error
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class _Forgiving:
    """A text stream that drops what it cannot write, and is otherwise the wrapped stream."""

    def __init__(self, stream: Any, errors: _Forgiving | None) -> None:
        self._stream, self._errors, self._broken = stream, errors, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if not self._broken:
            encoding = getattr(self._stream, "encoding", None) or "utf-8"
            try:
                text.encode(encoding)
            except UnicodeEncodeError:
                text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:  # ValueError: it was closed
                self._give_up(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._broken:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        self._broken = True
        # When Python flushes the stream at exit, what is left in its buffer is dropped too.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _to_null(self._stream.fileno())
        if self._errors is not None and isinstance(error, OSError) and error.errno != errno.EPIPE:
            self._errors.write(f"warning: standard output cannot be written ({error.strerror}); going on without it\n")


def _open_closed_descriptors() -> None:
    """A file that is opened while 1 or 2 is closed would get that number, and all later output with it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _to_null(descriptor)


def _opened(stream: Any, descriptor: int) -> Any:
    """Python has no stream where the descriptor was closed when it started."""
    return open(descriptor, "w", closefd=False) if stream is None else stream


def _to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
