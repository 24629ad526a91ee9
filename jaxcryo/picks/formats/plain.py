"""A plain table: `run,particle,x,y,z,score`, ångströms from the corner. It holds all that picks have."""

from __future__ import annotations

import pathlib
import reprlib
from collections.abc import Mapping

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Row, Types, picks_of_rows
from jaxcryo.picks.formats.tables import columns_of, number, read_rows, to_csv
from jaxcryo.picks.geometry import Frames, Note

_RUN = ("run", "run_name", "experiment", "tomogram")
_PARTICLE = ("particle", "particle_type", "object_name", "pickable_object_name")
_EXPECTED = "expected a CSV table with the columns run, particle, x, y, z (ångströms) and, if known, score"


def _read(path: pathlib.Path, types: Types, frames: Frames, note: Note) -> dict[str, Picks]:
    index_of = {t.name: i for i, t in enumerate(types)}
    rows: dict[str, list[Row]] = {}
    axes = (("x",), ("y",), ("z",))
    # A table without particles is about the only type, if there is only one.
    named = len(types) != 1 or any(name in columns_of(path) for name in _PARTICLE)
    for where, cells in read_rows(path, _EXPECTED, (_RUN, *axes, *([_PARTICLE] if named else []))):
        run = _cell(cells, _RUN, where)
        particle = _cell(cells, _PARTICLE, where) if named else types[0].name
        if particle not in index_of:
            raise InputError(f"{where}: unknown particle {reprlib.repr(particle)}; the types are {', '.join(index_of)}")
        x, y, z = (number(_cell(cells, axis, where), axis[0], where) for axis in axes)
        score = cells.get("score", "").strip()
        rows.setdefault(run, []).append((x, y, z, index_of[particle], number(score, "score", where) if score else None))
    return {run: picks_of_rows(run, types, own) for run, own in rows.items()}


def _cell(cells: Mapping[str, str], names: tuple[str, ...], where: str) -> str:
    name = next(name for name in names if name in cells)
    value = cells[name].strip()
    if not value:
        raise InputError(f"{where}: has no {name}; complete or remove the line")
    return value


def _encode(picks: PicksByRun, path: pathlib.Path, frames: Frames) -> dict[pathlib.Path, str]:
    rows = [
        (run, own.types[index].name, *xyz, "" if own.score is None else float(own.score[i]))
        for run, own in picks.items()
        for i, (xyz, index) in enumerate(zip(own.xyz_angstrom.tolist(), own.type_index, strict=True))
    ]
    return {path: to_csv(("run", "particle", "x", "y", "z", "score"), rows)}


PLAIN = PickFormat(name="csv", title="a plain table", read=_read, encode=_encode)
