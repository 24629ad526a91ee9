"""Writing outputs whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from jaxcryo.errors import OutputError

_ADVICE = {
    errno.EACCES: "give yourself the right to write there, or choose another output",
    errno.EPERM: "give yourself the right to write there, or choose another output",
    errno.EROFS: "the disk is mounted read-only: choose another output",
    errno.ENOSPC: "the disk is full: free some space, or choose another output",
    errno.EDQUOT: "the quota is used up: free some space, or choose another output",
    errno.EFBIG: "the file system takes no file of that size: choose another output",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a file is where a folder is needed: move it away, or choose another output",
    errno.EEXIST: "a file is where a folder is needed: move it away, or choose another output",
    errno.EISDIR: "a folder is where a file is needed: move it away, or choose another output",
}


@contextlib.contextmanager
def atomic_path(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write a file or a folder to; it becomes `path` when the block ends without an error.

    What was at `path` stays untouched until then, and for good if the block fails. Missing parents are made.

    Raises:
        OutputError: the output cannot be written; other errors of the block pass through.
    """
    path = pathlib.Path(path).absolute()
    fresh = path.with_name(f".{os.getpid()}-new-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(fresh)
        yield fresh
        _replace(fresh, path)
    except OSError as error:
        if error.errno not in _ADVICE or not _concerns(error, path, fresh):
            raise
        raise OutputError(f"{path}: cannot be written ({reason(error, path)}); {_ADVICE[error.errno]}") from error
    finally:
        with contextlib.suppress(OSError):
            _remove(fresh)


def reason(error: OSError, path: pathlib.Path) -> str:
    """What the system said, and how much is free where a disk is full."""
    said = error.strerror or str(error)
    return f"{said}, {free_space(path)}" if error.errno == errno.ENOSPC else said


def free_space(path: pathlib.Path) -> str:
    """How much can still be written near a path, for people."""
    there = next(p for p in (path, *path.parents) if p.exists())
    return f"{shutil.disk_usage(there).free / 1e6:,.1f} MB free"


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Writes UTF-8 text atomically; raises as `atomic_path` does."""
    with atomic_path(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _replace(fresh: pathlib.Path, path: pathlib.Path) -> None:
    """Renames over `path`. A folder cannot be renamed over a filled one, so that one is moved aside first."""
    if not (fresh.is_dir() and path.is_dir() and not path.is_symlink()):
        fresh.replace(path)
        return
    old = path.with_name(f".{os.getpid()}-old-{path.name}")
    _remove(old)
    path.replace(old)
    try:
        fresh.replace(path)
    except OSError:
        old.replace(path)
        raise
    _remove(old)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _concerns(error: OSError, path: pathlib.Path, fresh: pathlib.Path) -> bool:
    """Whether the error is about this output and not about something else that the block opened."""
    if error.filename is None:
        return True
    named = pathlib.Path(os.fsdecode(error.filename)).absolute()
    return named in (path, fresh) or fresh in named.parents or named in path.parents
