"""Files that are appended to, even if the disk is full at times."""

from __future__ import annotations

import os
import pathlib

from jaxcryo.errors import OutputError
from jaxcryo.files import reason


class AppendLog:
    """A file that records are appended to.

    Records that cannot be written wait in memory, and are tried again with the next one.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []

    def add(self, record: bytes) -> None:
        """Adds a record, now if possible, else later; never fails."""
        self._waiting.append(record)
        self._write()

    def flush(self) -> None:
        """Writes the waiting records.

        Raises:
            OutputError: they cannot be written; they keep waiting.
        """
        error = self._write()
        if error is not None:
            raise OutputError(f"{self.path}: cannot be written ({reason(error, self.path)})") from error

    def _write(self) -> OSError | None:
        if not self._waiting:
            return None
        try:
            with self.path.open("ab", buffering=0) as file:
                size, data = os.fstat(file.fileno()).st_size, b"".join(self._waiting)
                try:
                    while data:
                        data = data[file.write(data) :]
                except OSError:
                    file.truncate(size)  # no half a record
                    raise
        except OSError as error:
            return error
        self._waiting.clear()
        return None
