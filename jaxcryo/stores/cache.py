"""A cache of what was fetched from servers, in a folder of limited size: what was read longest ago is deleted first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import threading

from jaxcryo.errors import InputError

_LIMIT_GB = 20.0
_FOLDER = "jaxcryo-chunks"
"""A subfolder of the given folder, so that nothing else in it is ever removed."""
_KEPT = 0.9
"""Of the limit, when room is made."""
_BETWEEN_LOOKS = 0.05
"""Of the limit: after so much was written, what others wrote is counted again."""


class Cache:
    """Several processes may share a cache; each may briefly exceed the limit by a twentieth of it.

    Raises:
        InputError: the folder cannot be made, or the limit is not above 0.
    """

    def __init__(self, folder: str | os.PathLike[str], limit_gb: float = _LIMIT_GB) -> None:
        if not 0 < limit_gb < float("inf"):
            raise InputError(f"a cache of {limit_gb:g} GB was asked for; expected a size above 0")
        self.folder = pathlib.Path(folder).absolute() / _FOLDER
        self.limit_bytes = int(limit_gb * 1e9)
        self.fault: str | None = None
        """A sentence on why nothing more is kept; cleared by the caller that reports it."""
        self._failed = False
        self._lock = threading.Lock()
        self._room = 0
        """To be written before the folder is looked through again."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made ({error.strerror}); choose another --cache") from error

    def __reduce__(self) -> tuple[type[Cache], tuple[str, float]]:
        return type(self), (str(self.folder.parent), self.limit_bytes / 1e9)

    def get(self, name: str) -> bytes | None:
        """What is kept under a name; None if nothing is."""
        path = self._path(name)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, name: str, data: bytes) -> None:
        """Keeps bytes under a name, unless they cannot be written; `fault` then says why."""
        if len(data) > self.limit_bytes:
            return
        path = self._path(name)
        fresh = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with self._lock:
                self._room -= len(data)
                if self._room < 0:
                    self._make_room(len(data))
            path.parent.mkdir(exist_ok=True)
            fresh.write_bytes(data)
            fresh.replace(path)
        except OSError as error:
            if not self._failed:
                self.fault = f"{self.folder}: cannot be written ({error.strerror}): chunks are read but not kept"
            self._failed = True
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _path(self, name: str) -> pathlib.Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.folder / digest[:2] / digest[2:]

    def _make_room(self, wanted: int) -> None:
        found = []
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(OSError):  # another process removed it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        if total + wanted > self.limit_bytes:
            for _, size, path in sorted(found):
                if total + wanted <= _KEPT * self.limit_bytes:
                    break
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size
        self._room = min(int(_BETWEEN_LOOKS * self.limit_bytes), self.limit_bytes - total - wanted)
