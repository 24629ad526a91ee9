"""Writing outputs whole or not at all, and reading text from outside: regular files of a size that picks can have."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any

from jaxcryo.errors import InputError, OutputError

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
    fresh = path.with_name(f".{secrets.token_hex(4)}-new-{path.name}")  # process ids are alike on two machines
    _unfinished.add(fresh)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        _replace(fresh, path)
    except OSError as error:
        if error.errno not in _ADVICE or not _concerns(error, path, fresh):
            raise
        raise OutputError(f"{path}: cannot be written ({reason(error, path)}); {_ADVICE[error.errno]}") from error
    finally:
        with contextlib.suppress(OSError):
            _remove(fresh)
        _unfinished.discard(fresh)


_unfinished: set[pathlib.Path] = set()


def remove_unfinished() -> None:
    """Removes what this process has half written, before it ends without an orderly end."""
    for fresh in list(_unfinished):
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
    old = path.with_name(f".{secrets.token_hex(4)}-old-{path.name}")
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


MAX_BYTES = 256 * 2**20
"""About two million picks in the wordiest format."""


def check_file(path: pathlib.Path, expected: str, *, limit: int = MAX_BYTES) -> None:
    """Raises InputError unless the path is a regular file of at most `limit` bytes; opens nothing."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read ({reason}); {expected}") from error
    if not path.is_file():
        raise InputError(f"{path}: cannot be read (not a regular file); {expected}")
    if size > limit:
        raise InputError(f"{path}: has {size} bytes; {expected} of at most {limit} bytes: split the file")


def read_text(path: str | pathlib.Path, expected: str, *, limit: int = MAX_BYTES, kind: str = "text") -> str:
    """The file's UTF-8 text, without a byte order mark. `expected` completes messages, as in "expected a CSV table".

    Raises:
        InputError: the file cannot be read, is larger than `limit` bytes, is not UTF-8, or holds NUL.
    """
    path = pathlib.Path(path)
    check_file(path, expected, limit=limit)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {expected}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not {kind} ({error}); {expected}: copy it again") from error
    if "\0" in text:
        raise InputError(f"{path}: is not {kind} (it holds NUL characters); {expected}: copy it again")
    return text


def read_json(path: str | pathlib.Path, expected: str, *, limit: int = MAX_BYTES) -> Any:
    """The values of a JSON file; raises as `read_text` does, and where it is not JSON or nested too deeply."""
    text = read_text(path, expected, limit=limit, kind="JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); {expected}: copy it again") from error
