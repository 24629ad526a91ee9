"""CSV tables: reading their rows, and the two formats that are one table for all runs.

`csv` is the plain table `run,particle,x,y,z,score` and further columns, which holds all that picks have; `kaggle` the
challenge's submission `id,experiment,particle_type,x,y,z`. Both are ångströms from the corner.
"""

from __future__ import annotations

import csv
import io
import math
import pathlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcryo.domain import MEASURES, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_text, write_text
from jaxcryo.picks.formats.base import (
    PickFormat,
    PicksByRun,
    Rows,
    Types,
    picks_by_run,
)
from jaxcryo.picks.geometry import Geometries, Note, ignore
from jaxcryo.picks.measures import measures_of, shown_measures

_RUN = ("run", "run_name", "experiment", "tomogram")
_PARTICLE = ("particle", "particle_type", "object_name", "pickable_object_name")
_AXES = (("x",), ("y",), ("z",))
_MATRIX = tuple(f"r{i}{j}" for i in range(3) for j in range(3))
"""The orientation's matrix, row by row."""
_EXPECTED = "expected a CSV table with the columns run, particle, x, y, z (ångströms) and, if known, score"
_KAGGLE = ("experiment", "particle_type", "x", "y", "z")
_KAGGLE_EXPECTED = f"expected Kaggle's table with the columns {', '.join(_KAGGLE)}"


def read_rows(
    path: pathlib.Path, expected: str, needed: Sequence[Sequence[str]]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The place (file and line) and the cells of each row, by the names in the first line.

    `needed` lists the required columns, each by the names it may have.

    Raises:
        InputError: the file cannot be read, lacks a column or has it twice, or a row is of another length.
    """
    reader = csv.reader(io.StringIO(read_text(path, expected), newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = sorted({n for n in header if header.count(n) > 1})
        missing = [names[0] for names in needed if not any(n in header for n in names)]
        if twice or missing:
            problem = f"has the column {reprlib.repr(twice[0])} twice" if twice else f"lacks {', '.join(missing)}"
            raise InputError(f"{path}: {problem}; {expected}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(f"{where}: has {len(row)} cells; expected {len(header)} as in the first line")
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: is not CSV ({error}); {expected}") from error


def columns_of(path: pathlib.Path) -> tuple[str, ...]:
    """The names in a CSV file's first line; none where it cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return tuple(name.strip() for name in next(csv.reader([stream.readline(65536)]), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return ()


def number(text: str, what: str, where: str) -> float:
    """A finite number from a cell. Raises InputError with the place."""
    value = number_or_nan(text)
    if math.isnan(value):
        raise InputError(f"{where}: {what} is {text[:40]!r}; expected a finite number: correct or remove the line")
    return value


def number_or_nan(text: str) -> float:
    """A number from a cell, NaN if it is not a finite number."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """The text of a CSV file; floats in the shortest form that reads back as the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def translation_of(cells: Mapping[str, str]) -> list[float]:
    """What copick's tables add to a position: the last column of its transformation, 0 if missing."""
    return [0.0 if np.isnan(v) else v for v in (number_or_nan(cells.get(f"transform_{i}3", "")) for i in range(3))]


def optional_columns(cells: Mapping[str, str], types: Types) -> list[float]:
    """Score, probability, the nine numbers of the orientation and the measures of a row, NaN for what is missing.

    The orientation is in columns of this format, or of copick's (transform_00, …).
    """
    numbers = [
        number_or_nan(cells.get(name, cells.get(f"transform_{name[1:]}", "")))
        for name in ("score", "probability", *_MATRIX)
    ]
    return numbers + measures_of(cells, types)


def optional_arrays(values: Sequence[Sequence[float]], where: str, note: Note) -> dict[str, Any]:
    """The results of `optional_columns` for all rows, as `Rows` takes them."""
    table = np.asarray(values, np.float64).reshape(-1, 2 + len(_MATRIX) + len(MEASURES))
    score, probability, matrices, measures = np.split(table, (1, 2, 2 + len(_MATRIX)), axis=1)
    matrices = matrices.reshape(-1, 3, 3)
    turned = np.einsum("nij,nkj->nik", matrices, matrices)
    good = np.isfinite(turned).all(axis=(1, 2))
    good[good] = np.abs(turned[good] - np.eye(3)).max(axis=(1, 2)) < 1e-3
    strange = int((np.isfinite(matrices).any(axis=(1, 2)) & ~good).sum())
    if strange:
        note(f"{where}: {strange} picks have an orientation that is not a rotation; it is not kept")
    matrices[~good] = np.nan
    return {
        "score": score[:, 0],
        "probability": probability[:, 0],
        "orientation": matrices if good.any() else None,
        "measured": dict(zip(MEASURES, measures.T, strict=True)),
    }


def optional_cells(own: Picks) -> tuple[list[str], list[list[Any]]]:
    """The names and the cells of all that these picks have besides a position."""
    names: list[str] = []
    arrays = []
    for name, values in (("score", own.score), ("probability", own.probability)):
        if values is not None:
            names.append(name)
            arrays.append(values[:, None])
    if own.orientation is not None:
        names.extend(_MATRIX)
        arrays.append(own.orientation.reshape(-1, len(_MATRIX)))
    cells: list[list[Any]] = np.concatenate(arrays, axis=1).tolist() if arrays else [[] for _ in range(len(own))]
    for name, shown in shown_measures(own).items():
        names.append(name)
        for row, value in zip(cells, shown, strict=True):
            row.append("" if value is None else value)
    return names, cells


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    index_of = {t.name: i for i, t in enumerate(types)}
    runs: list[str] = []
    kinds: list[int] = []
    xyz: list[list[float]] = []
    values: list[list[float]] = []
    # A table without particles is about the only type, if there is only one.
    named = len(types) != 1 or any(name in columns_of(path) for name in _PARTICLE)
    for where, cells in read_rows(path, _EXPECTED, (_RUN, *_AXES, *([_PARTICLE] if named else []))):
        particle = _cell(cells, _PARTICLE, where) if named else types[0].name
        if particle not in index_of:
            raise InputError(f"{where}: unknown particle {reprlib.repr(particle)}; the types are {', '.join(index_of)}")
        runs.append(_cell(cells, _RUN, where))
        kinds.append(index_of[particle])
        position = [number(_cell(cells, axis, where), axis[0], where) for axis in _AXES]
        xyz.append([a + b for a, b in zip(position, translation_of(cells), strict=True)])
        values.append(optional_columns(cells, types))
    rows = Rows(
        where=str(path),
        runs=runs,
        xyz_angstrom=np.asarray(xyz, np.float64).reshape(-1, 3),
        type_index=np.asarray(kinds, np.int64),
        **optional_arrays(values, str(path), note),
    )
    return picks_by_run(types, [rows], note)


def _cell(cells: Mapping[str, str], names: tuple[str, ...], where: str) -> str:
    name = next(name for name in names if name in cells)
    value = cells[name].strip()
    if not value:
        raise InputError(f"{where}: has no {name}; complete or remove the line")
    return value


def _encode(picks: PicksByRun, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    parts = {run: optional_cells(own) for run, own in picks.items()}
    optional = ["score", *dict.fromkeys(name for names, _ in parts.values() for name in names if name != "score")]
    rows = []
    for run, own in picks.items():
        names, cells = parts[run]
        for xyz, index, further in zip(own.xyz_angstrom.tolist(), own.type_index, cells, strict=True):
            has = dict(zip(names, further, strict=True))
            rows.append((run, own.types[index].name, *xyz, *(has.get(name, "") for name in optional)))
    return {path: to_csv(("run", "particle", "x", "y", "z", *optional), rows)}


def read_submission(path: str | pathlib.Path, types: Types, *, note: Note = ignore) -> dict[str, Picks]:
    """Picks by run from a table with the columns `experiment,particle_type,x,y,z`; others are skipped.

    Raises:
        InputError: the file cannot be read, lacks a column, names an unknown particle, or holds a bad number.
    """
    path = pathlib.Path(path)
    index_of = {t.name: i for i, t in enumerate(types)}
    runs: list[str] = []
    kinds: list[int] = []
    xyz: list[list[float]] = []
    for where, cells in read_rows(path, _KAGGLE_EXPECTED, [(name,) for name in _KAGGLE]):
        run, particle = (cells[name].strip() for name in _KAGGLE[:2])
        if not run or not particle:
            raise InputError(f"{where}: has no experiment or particle type; expected both: complete or remove the line")
        if particle not in index_of:
            raise InputError(
                f"{where}: unknown particle type {reprlib.repr(particle)}; the types are {', '.join(index_of)}"
            )
        runs.append(run)
        kinds.append(index_of[particle])
        xyz.append([number(cells[axis], axis, where) for axis in "xyz"])
    rows = Rows(
        where=str(path),
        runs=runs,
        xyz_angstrom=np.asarray(xyz, np.float64).reshape(-1, 3),
        type_index=np.asarray(kinds, np.int64),
    )
    return picks_by_run(types, [rows], note)


def write_submission(all_picks: Sequence[Picks], path: str | pathlib.Path) -> None:
    """Writes Kaggle's table, in ångströms to three decimals."""
    write_text(path, _submission(all_picks))


def _submission(all_picks: Sequence[Picks]) -> str:
    rows = [
        (picks.run, picks.types[index].name, *(round(v, 3) for v in xyz))
        for picks in all_picks
        for xyz, index in zip(picks.xyz_angstrom.tolist(), picks.type_index, strict=True)
    ]
    return to_csv(("id", *_KAGGLE), [(i, *row) for i, row in enumerate(rows)])


def _recognizes_kaggle(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".csv" and set(_KAGGLE[:2]) <= set(columns_of(path))


PLAIN = PickFormat(
    name="csv",
    title="a plain table",
    recognizes=lambda path: path.suffix.lower() == ".csv",
    read=_read,
    encode=_encode,
    in_angstrom=True,
    place="picks.csv",
    holds_probabilities=True,
    holds_orientations=True,
    holds_measures=True,
)
KAGGLE = PickFormat(
    name="kaggle",
    title="Kaggle's table",
    recognizes=_recognizes_kaggle,
    read=lambda path, types, geometries, note: read_submission(path, types, note=note),
    encode=lambda picks, path, geometries: {path: _submission(list(picks.values()))},
    in_angstrom=True,
    place="submission.csv",
    holds_scores=False,
    rounding_angstrom=0.001,
)
