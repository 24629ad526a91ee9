"""Dynamo's tables: columns 24 to 26 are x, y, z in pixels counted from 1, column 20 the tomogram's number.

The pixels are those of the tomogram that the table belongs to. "Dynamo uses the convention of counting pixels with
the index 1" (Dynamo's wiki, Volume_center), and RELION subtracts 1 as well (src/jaz/tomography/dynamo,
ONE_BASED_COORDS); copick, ArtiaX and cryoCAT read the numbers without doing so. Numbers become names by a map file
beside the table, `<number> <file>` a line (wiki, Tomogram-table_map_file). A table of one particle is named after it;
in one of several, column 22 (class) counts the particle types from 1.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_text
from jaxcryo.picks.formats.base import (
    PickFormat,
    PicksByRun,
    Row,
    Types,
    files_of,
    particle_of_file,
    picks_of_rows,
)
from jaxcryo.picks.formats.names import check_words
from jaxcryo.picks.formats.tables import number
from jaxcryo.picks.geometry import Frames, Note
from jaxcryo.tomogram.volumes import tomogram_name

COLUMNS = 35
_MAPS = ("tomograms.doc", "indices_column20.doc")
_FIRST_PIXEL = 1.0
_TAG, _ALIGN, _SHIFT, _ANGLES, _CC, _TOMOGRAM, _CLASS, _X = 0, 1, 3, 6, 9, 19, 21, 23
_EXPECTED = f"expected a Dynamo table: numbers in at least {_X + 3} columns"


def _read(path: pathlib.Path, types: Types, frames: Frames, note: Note) -> dict[str, Picks]:
    rows: dict[str, list[Row]] = {}
    for file in files_of(path, ".tbl", types, note):
        names = _read_map(file)
        for run, row in _read_file(file, types, names, frames, note):
            rows.setdefault(run, []).append(row)
    return {run: picks_of_rows(run, types, own) for run, own in rows.items()}


def _read_file(
    path: pathlib.Path, types: Types, names: Mapping[int, str], frames: Frames, note: Note
) -> list[tuple[str, Row]]:
    particle = particle_of_file(path, types)
    found: list[tuple[str, Row]] = []
    oriented = False
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
        run = names[tomogram]
        index = particle
        if index is None:
            index = _count(cells[_CLASS], "the class (column 22)", where) - 1
            if not 0 <= index < len(types):
                raise InputError(
                    f"{where}: the class is {index + 1}; expected 1 to {len(types)} "
                    f"({', '.join(t.name for t in types)}), or a table named after its particle"
                )
        pixel = [number(c, "x, y or z (columns 24 to 26)", where) for c in cells[_X : _X + 3]]
        shift = [number(c, "a shift (columns 4 to 6)", where) for c in cells[_SHIFT : _SHIFT + 3]]
        x, y, z = ((np.add(pixel, shift) - _FIRST_PIXEL) * frames.of(run).voxel_spacing(run)).tolist()
        found.append((run, (x, y, z, index, number(cells[_CC], "cc (column 10)", where))))
        oriented = oriented or any(number(c, "an angle", where) for c in cells[_ANGLES : _ANGLES + 3])
    if found and particle is None:
        note(f"{path}: its classes were read as {', '.join(f'{i} {t.name}' for i, t in enumerate(types, 1))}")
    if oriented:
        note(f"{path}: orientations are not kept, picks have none")
    return found


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


def _encode(picks: PicksByRun, path: pathlib.Path, frames: Frames) -> dict[pathlib.Path, str]:
    check_words(picks, "run", str(path))
    types = next(iter(picks.values())).types if picks else ()
    single = path.suffix.lower() == ".tbl"
    lines: dict[int, list[str]] = {i: [] for i in range(len(types))}
    tag = 0
    for tomogram, (run, own) in enumerate(picks.items(), 1):
        pixels = own.xyz_angstrom / frames.of(run).voxel_spacing(run) + _FIRST_PIXEL
        for i, (pixel, index) in enumerate(zip(pixels.tolist(), own.type_index.tolist(), strict=True)):
            tag += 1
            row = ["0"] * COLUMNS
            row[_TAG], row[_ALIGN], row[_TOMOGRAM], row[_CLASS] = str(tag), "1", str(tomogram), str(index + 1)
            row[_CC] = "0" if own.score is None else repr(float(own.score[i]))
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


DYNAMO = PickFormat(
    name="dynamo",
    title="a Dynamo table",
    read=_read,
    encode=_encode,
)
