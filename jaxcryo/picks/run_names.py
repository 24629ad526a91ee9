"""Which tomogram a name means, since programs name the same one differently."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

_SUFFIXES = re.compile(
    r"(\.tomostar|\.ome\.zarr|\.zarr|\.mrcs?|\.rec|\.map|\.st|\.ali|\.hdf|\.xml"
    r"|_\d+(\.\d+)?Apx|_Vol|_full_rec|_rec|_ali|_bin\d+|_b\d+|\.b\d+)$",
    re.IGNORECASE,
)
"""What Warp, AreTomo, IMOD and EMAN2 add to the name of a tilt series."""
_PREFIXES = re.compile(r"^(rec_|tomo_(?=[A-Za-z]))", re.IGNORECASE)
_SERIES = re.compile(r"(?:ts|tomo|tomogram)?[_-]?0*(\d+)", re.IGNORECASE)
"""A tomogram that has only a number: 7, 007, TS_007, tomo7."""
_SHOWN = 10


def plain_name(name: str) -> str:
    """The name without the folders, suffixes and affixes that programs add."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    while (shorter := _PREFIXES.sub("", _SUFFIXES.sub("", name))) not in (name, ""):
        name = shorter
    return name


def same_run(name: str, among: Collection[str]) -> str | None:
    """The one of these runs that is called `name`, or that differs from it only by what programs add or by the way a
    number is written; None where there is none, or several.
    """
    if name in among:
        return name
    for key in (plain_name, _number):
        wanted = key(name)
        fitting = [run for run in among if wanted and key(run) == wanted]
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
    return None


def _number(name: str) -> str | None:
    match = _SERIES.fullmatch(plain_name(name))
    return match[1] if match else None


def renamed(names: Iterable[str], among: Sequence[str]) -> dict[str, str]:
    """For each name that is not among the runs but means one of them, that run; no two names mean the same one."""
    names = list(names)
    found = {name: run for name in names if name not in among and (run := same_run(name, among)) is not None}
    taken = list(found.values()) + [name for name in names if name in among]
    return {name: run for name, run in found.items() if taken.count(run) == 1}


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """The names, the first of them where they are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "no run"
