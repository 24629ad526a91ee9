"""Dynamo's tables: columns 24 to 26 are x, y, z in pixels counted from 1, column 20 the tomogram's number.

The pixels are those of the tomogram that the table belongs to. "Dynamo uses the convention of counting pixels with
the index 1" (Dynamo's wiki, Volume_center), and RELION subtracts 1 as well (src/jaz/tomography/dynamo,
ONE_BASED_COORDS); copick, ArtiaX and cryoCAT read the numbers without doing so. Numbers become names by a map file
beside the table, `<number> <file>` a line (wiki, Tomogram-table_map_file). A table of one particle is named after it;
in one of several, column 22 (class) counts the particle types from 1.

Columns 7 to 9 (tdrot, tilt, narot) turn the reference clockwise about its z, its new x and its new z (wiki,
Euler_angles_convention), which is the inverse of the same angles counter-clockwise about the fixed axes.
"""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_text
from jaxcryo.picks.formats.base import (
    PickFormat,
    PicksByRun,
    Rows,
    Types,
    check_words,
    files_of,
    orientations,
    particle_of_file,
    picks_by_run,
)
from jaxcryo.picks.formats.tables import number, number_or_nan
from jaxcryo.picks.geometry import Geometries, Note
from jaxcryo.tomogram.volumes import tomogram_name

COLUMNS = 35
_MAPS = ("tomograms.doc", "indices_column20.doc")
_FIRST_PIXEL = 1.0
_TAG, _ALIGN, _SHIFT, _ANGLES, _CC, _TOMOGRAM, _CLASS, _X = 0, 1, 3, 6, 9, 19, 21, 23
_EXPECTED = f"expected a Dynamo table: numbers in at least {_X + 3} columns"


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    tables = [_read_file(f, types, _read_map(f), geometries, note) for f in files_of(path, ".tbl", types, note)]
    return picks_by_run(types, tables, note)


def _read_file(path: pathlib.Path, types: Types, names: Mapping[int, str], geometries: Geometries, note: Note) -> Rows:
    particle = particle_of_file(path, types)
    runs: list[str] = []
    kinds: list[int] = []
    values: list[list[float]] = []
    scores: list[float] = []
    for line, text in enumerate(read_text(path, _EXPECTED).splitlines(), 1):
        cells, where = text.split(), f"{path}, line {line}"
        if not cells:
            continue
        if len(cells) < _X + 3:
            raise InputError(f"{where}: has {len(cells)} columns; {_EXPECTED}")
        tomogram = _count(cells[_TOMOGRAM], "the tomogram's number (column 20)", where)
        if tomogram not in names:
            raise InputError(
                f"{where}: tomogram {tomogram} has no name; expected a line '{tomogram} <file>' in "
                f"{path.with_suffix('.doc').name} or {_MAPS[0]} beside the table"
            )
        runs.append(names[tomogram])
        index = particle
        if index is None:
            index = _count(cells[_CLASS], "the class (column 22)", where) - 1
            if not 0 <= index < len(types):
                raise InputError(
                    f"{where}: the class is {index + 1}; expected 1 to {len(types)} "
                    f"({', '.join(t.name for t in types)}), or a table named after its particle"
                )
        kinds.append(index)
        values.append(
            [
                *(number(c, "x, y or z (columns 24 to 26)", where) for c in cells[_X : _X + 3]),
                *(number(c, "a shift (columns 4 to 6)", where) for c in cells[_SHIFT : _SHIFT + 3]),
                *(number_or_nan(c) for c in cells[_ANGLES : _ANGLES + 3]),
            ]
        )
        scores.append(number_or_nan(cells[_CC]))
    if runs and particle is None:
        note(f"{path}: its classes were read as {', '.join(f'{i} {t.name}' for i, t in enumerate(types, 1))}")
    table = np.asarray(values, np.float64).reshape(-1, 9)
    spacings = {run: geometries.of(run).voxel_spacing(run) for run in dict.fromkeys(runs)}
    spacing = np.asarray([spacings[run] for run in runs], np.float64).reshape(-1, 3)
    return Rows(
        where=str(path),
        runs=runs,
        xyz_angstrom=(table[:, :3] + table[:, 3:6] - _FIRST_PIXEL) * spacing,
        type_index=np.asarray(kinds, np.int64),
        score=np.asarray(scores, np.float64),
        orientation=_orientation(table[:, 6:]),
    )


def _orientation(angles: Float[NDArray[np.float64], "n 3"]) -> Float[NDArray[np.float64], "n 3 3"] | None:
    given = np.asarray(np.isfinite(angles).all(axis=1), np.bool_)
    if not len(angles):
        return None
    rotation = Rotation.from_euler("zxz", np.where(given[:, None], angles, 0.0), degrees=True).inv()
    return orientations(rotation, given)


def _euler_angles(matrices: Float[NDArray[np.float64], "n 3 3"]) -> Float[NDArray[np.float64], "n 3"]:
    if not len(matrices):
        return np.zeros((0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tilt of 0, where both other angles turn about one axis
        return Rotation.from_matrix(matrices).inv().as_euler("zxz", degrees=True)


def _count(cell: str, what: str, where: str) -> int:
    value = number(cell, what, where)
    if value != int(value) or not 0 <= value <= 10**9:
        raise InputError(f"{where}: {what} is {cell[:40]!r}; expected a whole number")
    return int(value)


def _read_map(path: pathlib.Path) -> dict[int, str]:
    """Names of runs by tomogram number, of the map file beside a table."""
    places = [path.with_suffix(".doc"), *(path.with_name(name) for name in _MAPS)]
    place = next((p for p in places if p.is_file()), None)
    if place is None:
        raise InputError(
            f"{path}: the names of its tomograms are not known; expected {' or '.join(p.name for p in places)} beside "
            "it, a line '<number> <file>' for each"
        )
    names: dict[int, str] = {}
    for line, text in enumerate(read_text(place, "expected '<number> <file>' in each line").splitlines(), 1):
        cells, where = text.split(), f"{place}, line {line}"
        if not cells:
            continue
        if len(cells) != 2:
            raise InputError(f"{where}: has {len(cells)} columns; expected '<number> <file>'")
        names[_count(cells[0], "the tomogram's number", where)] = tomogram_name(pathlib.Path(cells[1]))
    return names


def _encode(picks: PicksByRun, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    check_words(picks, "run", str(path))
    types = next(iter(picks.values())).types if picks else ()
    single = path.suffix.lower() == ".tbl"
    lines: dict[int, list[str]] = {i: [] for i in range(len(types))}
    tag = 0
    for tomogram, (run, own) in enumerate(picks.items(), 1):
        pixels = own.xyz_angstrom / geometries.of(run).voxel_spacing(run) + _FIRST_PIXEL
        angles = np.zeros((len(own), 3)) if own.orientation is None else _euler_angles(own.orientation)
        for i, (pixel, index) in enumerate(zip(pixels.tolist(), own.type_index.tolist(), strict=True)):
            tag += 1
            row = ["0"] * COLUMNS
            row[_TAG], row[_ALIGN], row[_TOMOGRAM], row[_CLASS] = str(tag), "1", str(tomogram), str(index + 1)
            row[_CC] = "0" if own.score is None else repr(float(own.score[i]))
            row[_ANGLES : _ANGLES + 3] = ["0" if own.orientation is None else repr(a) for a in angles[i].tolist()]
            row[_X : _X + 3] = [repr(p) for p in pixel]
            lines[index].append(" ".join(row))
    names = "".join(f"{i} {run}.mrc\n" for i, run in enumerate(picks, 1))
    if single:
        table = [line for i in lines for line in lines[i]]
        return {path: _text(table), path.with_suffix(".doc"): names}
    tables = {path / f"{t.name}.tbl": _text(lines[i]) for i, t in enumerate(types)}
    return {**tables, path / _MAPS[0]: names}


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _recognizes(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".tbl"


def _further_losses(picks: PicksByRun) -> list[str]:
    unscored = any(p.score is None and len(p) for p in picks.values())
    return ["that picks have no scores (column 10 is 0)"] if unscored else []


DYNAMO = PickFormat(
    name="dynamo",
    title="a Dynamo table",
    recognizes=_recognizes,
    read=_read,
    encode=_encode,
    suffix=".tbl",
    holds_orientations=True,
    further_losses=_further_losses,
)
