"""Files that grow at their end while the disk may be full."""

from __future__ import annotations

import os
import pathlib

from jaxcryo.errors import OutputError
from jaxcryo.files import reason


class AppendLog:
    """A file that records are added to.

    What cannot be written waits in memory, and is tried again with the next addition.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []

    def add(self, record: bytes) -> None:
        """Adds a record where that can be done now; never fails."""
        self._waiting.append(record)
        self._write()

    def flush(self) -> None:
        """Writes what waits.

        Raises:
            OutputError: it cannot be written; it waits on.
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
