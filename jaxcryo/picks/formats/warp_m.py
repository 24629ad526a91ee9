"""Particles of M (`*_particles.star` of a species): ångströms from the corner, with angles, read only.

Positions and angles may change during the exposure (`wrpCoordinateX1`, `X2`, …); the mean position and the first
orientation are used.
"""

from __future__ import annotations

import pathlib

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import star
from jaxcryo.picks.formats.base import (
    PickFormat,
    Rows,
    Types,
    files_of,
    head_of,
    particle_of_file,
    picks_by_run,
)
from jaxcryo.picks.geometry import Geometries, Note

_X, _SOURCE = "wrpCoordinateX1", "wrpSourceName"
_ANGLES = ("wrpAngleRot1", "wrpAngleTilt1", "wrpAnglePsi1")


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    return picks_by_run(types, [_rows(file, types, note) for file in files_of(path, ".star", types, note)], note)


def _rows(file: pathlib.Path, types: Types, note: Note) -> Rows:
    table = star.particles_of(star.read_blocks(file), file, (_X, "wrpCoordinateY1", "wrpCoordinateZ1"), (_SOURCE,))
    index = particle_of_file(file, types)
    if index is None:
        index = next((i for i, t in enumerate(types) if file.stem == f"{t.name}_particles"), None)
    if index is None:
        raise InputError(
            f"{file}: which particle it holds is not clear; name it <particle>.star with one of "
            f"{', '.join(t.name for t in types)}, or pass --particles with one particle"
        )
    steps = 1
    while f"wrpCoordinateX{steps + 1}" in table.columns:
        steps += 1
    xyz = [star.columns(table, [f"wrpCoordinate{a}{i + 1}" for a in "XYZ"], file) for i in range(steps)]
    return Rows(
        where=str(file),
        runs=[name.removesuffix(".tomostar") for name in star.names_of(table, _SOURCE, file)],
        xyz_angstrom=np.mean(xyz, axis=0),
        type_index=np.full(len(table), index, np.int64),
        orientation=star.orientation_of(table, _ANGLES, file, note),
    )


WARP_M = PickFormat(
    name="m",
    title="particles of M",
    recognizes=lambda path: path.suffix.lower() == ".star" and f"_{_X}".encode() in head_of(path),
    read=_read,
    in_angstrom=True,
)
