"""Names from files that become parts of paths."""

from __future__ import annotations

from collections.abc import Iterable

from jaxcryo.errors import InputError

_MAX_LENGTH = 200
_SEPARATORS = "/\\"


def check_names(names: Iterable[str], what: str, where: str) -> None:
    """Raises InputError where a name cannot safely be a file's or a folder's name.

    Refused are empty and overlong names, a leading dot (so also `.` and `..`), separators, control characters and
    surrounding space. `what` and `where` complete the message.
    """
    for name in names:
        if (
            not name
            or len(name) > _MAX_LENGTH
            or name.startswith(".")
            or name != name.strip()
            or not name.isprintable()
            or any(c in name for c in _SEPARATORS)
        ):
            shown = name if len(name) <= _MAX_LENGTH else f"{name[:40]}…"
            raise InputError(
                f"{where}: a {what} is called {shown!r}; expected a name that can be a folder's: without '/', '\\', "
                f"control characters and a leading dot, at most {_MAX_LENGTH} characters: rename it"
            )


def check_words(names: Iterable[str], what: str, where: str) -> None:
    """As `check_names`, for formats that separate their columns by space: no space, quotes or '#' either."""
    names = list(names)
    check_names(names, what, where)
    for name in names:
        if any(c.isspace() or c in "\"'#" for c in name) or name.lower() in ("nan", "<na>"):
            raise InputError(
                f"{where}: a {what} is called {name!r}, which this format cannot hold; expected a name without space, "
                "quotes and '#': rename it, or choose another format"
            )
