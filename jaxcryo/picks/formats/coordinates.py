"""Plain lists of x, y, z in voxels of the tomogram from 0: `.coords` of crYOLO and TomoTwin, `.xyz`, read only.

A file's name says which tomogram and particle it is about: `<run>.coords` where there is one type,
`<run>_<particle>.coords` and `<particle>/<run>.coords` otherwise.
"""

from __future__ import annotations

import pathlib

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_text
from jaxcryo.picks.formats.base import PickFormat, Rows, Types, picks_by_run
from jaxcryo.picks.formats.tables import number
from jaxcryo.picks.geometry import Geometries, Note

_SUFFIXES = (".coords", ".xyz")
_EXPECTED = "expected x, y, z in voxels of the tomogram, one particle a line"


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in _SUFFIXES and not f.name.startswith("."))
    if not files:
        raise InputError(f"{path}: has no {' or '.join(_SUFFIXES)} file; {_EXPECTED}")
    return picks_by_run(types, [_rows(file, types, geometries) for file in files], note)


def _rows(file: pathlib.Path, types: Types, geometries: Geometries) -> Rows:
    run, index = _about(file, types)
    xyz = []
    for line, text in enumerate(read_text(file, _EXPECTED).splitlines(), 1):
        cells, where = text.replace(",", " ").split(), f"{file}, line {line}"
        if not cells or cells[0].startswith("#"):
            continue
        if len(cells) != 3:
            raise InputError(f"{where}: has {len(cells)} columns; {_EXPECTED}")
        xyz.append([number(cell, axis, where) for cell, axis in zip(cells, "xyz", strict=True)])
    voxels = np.asarray(xyz, np.float64).reshape(-1, 3)
    return Rows(
        where=str(file),
        runs=[run] * len(xyz),
        xyz_angstrom=voxels * geometries.of(run).voxel_spacing(run) if len(xyz) else voxels,
        type_index=np.full(len(xyz), index, np.int64),
    )


def _about(file: pathlib.Path, types: Types) -> tuple[str, int]:
    """The run and the index of the type that a file is about."""
    if len(types) == 1:
        return file.stem.removesuffix(f"_{types[0].name}") or file.stem, 0
    for index, type_ in enumerate(types):
        if file.stem.endswith(f"_{type_.name}"):
            return file.stem.removesuffix(f"_{type_.name}"), index
        if file.absolute().parent.name == type_.name:
            return file.stem, index
    raise InputError(
        f"{file}: which particle it holds is not clear; call it <run>_<particle>{file.suffix} with one of "
        f"{', '.join(t.name for t in types)}, or pass --particles with one particle"
    )


COORDINATES = PickFormat(
    name="coords",
    title="a list of coordinates",
    recognizes=lambda path: path.suffix.lower() in _SUFFIXES and path.is_file(),
    read=_read,
)
