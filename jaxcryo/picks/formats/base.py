"""What a format of picks is, and what its functions share."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.domain import MEASURES, ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.geometry import Geometries, Note

Types = tuple[ParticleType, ...]
PicksByRun = Mapping[str, Picks]
Read = Callable[[pathlib.Path, Types, Geometries, Note], dict[str, Picks]]
Encode = Callable[[PicksByRun, pathlib.Path, Geometries], dict[pathlib.Path, str]]

_LONGEST_NAME = 200
_SEPARATORS = "/\\"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickFormat:
    """A format by its functions. A new one is a file that makes one of these, and a line in the registry."""

    name: str
    title: str
    recognizes: Callable[[pathlib.Path], bool]
    """Whether a file (or a folder, where the format is one) is in this format, by its name and first lines."""
    read: Read
    encode: Encode | None = None
    """The texts of files that hold the picks, without writing any; None where the format is only read."""
    suffix: str | None = None
    """A suffix that only this format is written with."""
    in_angstrom: bool = False
    """Whether positions are ångströms from the tomogram's corner, so that no geometry is needed."""
    place: str | None = None
    """What inference calls this output; the format's name if None."""
    holds_scores: bool = True
    holds_probabilities: bool = False
    holds_orientations: bool = False
    holds_measures: bool = False
    holds_empty_runs: bool = False
    rounding_angstrom: float | None = None
    """The step of its positions where they are rounded."""
    further_losses: Callable[[PicksByRun], list[str]] | None = None
    """Phrases for what else it cannot hold of these picks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Picks as a file lists them, those of several runs one after the other."""

    where: str
    """The file, for messages."""
    runs: Sequence[str]
    xyz_angstrom: Float[NDArray[np.float64], "n 3"]
    type_index: Int[NDArray[np.int64], " n"]
    score: Float[NDArray[np.float64], " n"] | None = None
    """NaN where a row has none, or none that is a number."""
    probability: Float[NDArray[np.float64], " n"] | None = None
    orientation: Float[NDArray[np.float64], "n 3 3"] | None = None
    """NaN where a row has none."""
    measured: Mapping[str, Float[NDArray[np.float64], " n"]] = dataclasses.field(default_factory=dict)


def picks_by_run(types: Types, tables: Iterable[Rows], note: Note) -> dict[str, Picks]:
    """The picks of each run, in the files' order.

    A run keeps its scores if every pick has one; otherwise they are left out, with a note.
    """
    tables = [table for table in tables if len(table.runs)]
    names = dict.fromkeys(run for table in tables for run in table.runs)
    index_of = {run: i for i, run in enumerate(names)}
    run_index = np.concatenate(
        [np.zeros(0, np.int64), *(np.asarray([index_of[r] for r in t.runs]) for t in tables)]
    ).astype(np.int64)
    xyz = np.concatenate([np.zeros((0, 3)), *(t.xyz_angstrom for t in tables)])
    kinds = np.concatenate([np.zeros(0, np.int64), *(t.type_index for t in tables)])
    optional = {
        "score": _joined([(t.score, len(t.runs)) for t in tables], ()),
        "probability": _joined([(t.probability, len(t.runs)) for t in tables], ()),
        "orientation": _joined([(t.orientation, len(t.runs)) for t in tables], (3, 3)),
    }
    measured = {name: _joined([(t.measured.get(name), len(t.runs)) for t in tables], ()) for name in MEASURES}
    where = ", ".join(dict.fromkeys(t.where for t in tables))
    found = {}
    for run, index in index_of.items():
        mine = np.flatnonzero(run_index == index)
        own = {name: _whole(values, mine, name, f"{where[:200]}: {run}", note) for name, values in optional.items()}
        beside = {n: v[mine] for n, v in measured.items() if v is not None and np.isfinite(v[mine]).any()}
        found[run] = Picks(
            run=run, types=types, xyz_angstrom=xyz[mine], type_index=kinds[mine], measured=beside, **own
        )  # fmt: skip
    return found


def _joined(
    parts: Sequence[tuple[NDArray[np.float64] | None, int]], shape: tuple[int, ...]
) -> NDArray[np.float64] | None:
    if all(values is None for values, _ in parts):
        return None
    return np.concatenate([np.full((n, *shape), np.nan) if values is None else values for values, n in parts])


def _whole(
    values: NDArray[np.float64] | None, mine: NDArray[np.int64], name: str, where: str, note: Note
) -> NDArray[np.float64] | None:
    if values is None:
        return None
    own = values[mine]
    good = np.isfinite(own).reshape(len(own), -1).all(axis=1)
    if not good.any():
        return None
    if name == "orientation":
        own[~good] = np.eye(3)
        return own
    if not good.all():
        without = len(own) - int(good.sum())
        note(f"{where}: {without} of {len(own)} picks have no {name} that is a number; no {name} is kept for this run")
        return None
    return own


def orientations(
    rotation: Rotation, given: NDArray[np.bool_] | None = None
) -> Float[NDArray[np.float64], "n 3 3"] | None:
    """Matrices of these rotations, NaN where `given` says that there is none; None where none turns anything."""
    matrices = np.asarray(rotation.as_matrix(), np.float64).reshape(-1, 3, 3)
    if not np.any(np.abs(matrices - np.eye(3)) > 1e-12):
        return None
    if given is not None:
        matrices[~given] = np.nan
    return matrices


def files_of(path: pathlib.Path, suffix: str, types: Types, note: Note) -> list[pathlib.Path]:
    """The file itself, or a folder's files `<particle><suffix>` by type; a note names others with the suffix.

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
            f"{', '.join(f.name for f in every) or f'no {suffix} file'}: rename them, or pass --particles"
        )
    if len(mine) < len(every):
        note(f"{path}: skipped {', '.join(f.name for f in every if f not in mine)}")
    return mine


def particle_of_file(path: pathlib.Path, types: Types) -> int | None:
    """The index of the type that a file is named after, or of the only type; None if neither."""
    for index, type_ in enumerate(types):
        if path.stem == type_.name:
            return index
    return 0 if len(types) == 1 else None


def head_of(path: pathlib.Path, size: int = 2**18) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError:
        return b""


def check_names(names: Iterable[str], what: str, where: str) -> None:
    """Raises InputError where a name cannot safely be a file's or a folder's name.

    Refuses empty and overlong names, a leading dot (so also `.` and `..`), separators, control characters and
    surrounding space. `what` and `where` complete the message.
    """
    for name in names:
        if (
            not name
            or len(name) > _LONGEST_NAME
            or name.startswith(".")
            or name != name.strip()
            or not name.isprintable()
            or any(c in name for c in _SEPARATORS)
        ):
            shown = name if len(name) <= _LONGEST_NAME else f"{name[:40]}…"
            raise InputError(
                f"{where}: a {what} is called {shown!r}; expected a name that can be a folder's: without '/', '\\', "
                f"control characters and a leading dot, at most {_LONGEST_NAME} characters: rename it"
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
