"""What a format of picks is."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.geometry import Frames, Note

Types = tuple[ParticleType, ...]
PicksByRun = Mapping[str, Picks]
Read = Callable[[pathlib.Path, Types, Frames, Note], dict[str, Picks]]
Encode = Callable[[PicksByRun, pathlib.Path, Frames], dict[pathlib.Path, str]]
Row = tuple[float, float, float, int, float | None]
"""x, y, z in ångströms, the type's index, the score where there is one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickFormat:
    """A format by its functions: `read` files, and `encode` picks as the texts of files without writing any."""

    name: str
    title: str
    read: Read
    encode: Encode
    holds_scores: bool = True
    holds_empty_runs: bool = False
    rounding_angstrom: float | None = None
    """The step of its positions where they are rounded."""


def picks_of_rows(run: str, types: Types, rows: Sequence[Row]) -> Picks:
    """Picks of one run; with scores where every row has one."""
    table = np.asarray([row[:3] for row in rows], np.float64).reshape(-1, 3)
    scores = [row[4] for row in rows if row[4] is not None]
    return Picks(
        run=run,
        types=types,
        xyz_angstrom=table,
        type_index=np.asarray([row[3] for row in rows], np.int64),
        score=np.asarray(scores, np.float64) if rows and len(scores) == len(rows) else None,
    )


def files_of(path: pathlib.Path, suffix: str, types: Types, note: Note) -> list[pathlib.Path]:
    """The file itself, or the files `<particle><suffix>` of a folder by types; others of the suffix are noted.

    Raises:
        InputError: the folder has none of these types.
    """
    if not path.is_dir():
        return [path]
    every = sorted(f for f in path.iterdir() if f.suffix.lower() == suffix and not f.name.startswith("."))
    mine = [f for t in types for f in every if f.stem == t.name]
    if not mine:
        raise InputError(
            f"{path}: has no <particle>{suffix} of {', '.join(t.name for t in types)}; it has "
            f"{', '.join(f.name for f in every) or f'no {suffix} file'}: rename them, or give --particles"
        )
    if len(mine) < len(every):
        note(f"{path}: passed over {', '.join(f.name for f in every if f not in mine)}")
    return mine


def particle_of_file(path: pathlib.Path, types: Types) -> int | None:
    """The index of the type that a file is named after, or of the only type; None where it is not clear."""
    for index, type_ in enumerate(types):
        if path.stem == type_.name:
            return index
    return 0 if len(types) == 1 else None
