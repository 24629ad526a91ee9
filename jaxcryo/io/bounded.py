"""Reading text from outside: regular files of a size that picks can have."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from jaxcryo.errors import InputError

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
