"""Particles for RELION: version 4 in unbinned pixels from the corner, version 5 in ångströms from the center.

RELION 4's `rlnCoordinateX/Y/Z` count from 0: voxel i of a tomogram that RELION binned by b lies at b·i (3dem/relion
5.0.1, src/jaz/tomography/particle_set.cpp, `getPosition`, and programs/reconstruct_tomogram.cpp, whose origin is 0;
4.0.2 adds 1 to the one and starts the other at 1). RELION 5 still reads them where there is no
`rlnCenteredCoordinateX/Y/ZAngst`, whose origin is `TomogramGeometry.center_xyz_angstrom`.

Orientations are composed as `ParticleSet::getMatrix3x3` does: that of the subtomogram times that of the particle.
"""

from __future__ import annotations

import pathlib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.domain import MEASURES
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import star
from jaxcryo.picks.formats.base import (
    PickFormat,
    PicksByRun,
    Rows,
    Types,
    check_words,
    files_of,
    head_of,
    particle_of_file,
    picks_by_run,
)
from jaxcryo.picks.formats.relion_scale import Scale, shift_xyz_angstrom
from jaxcryo.picks.geometry import Geometries, Note
from jaxcryo.picks.measures import measures_of, shown_measures

PIXELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
CENTERED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
SCORES = ("rlnAutopickFigureOfMerit", "rlnLCCmax")
"""RELION's and Warp's, pytom's."""
CLASS = "rlnClassNumber"
_SUBTOMOGRAM = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
PROBABILITY = "jaxcryoProbability"
_MEASURES = (star.SECOND_TYPE, "jaxcryoSecondScore", "jaxcryoBorderDistanceAngst", "jaxcryoSurfaceDistanceAngst")
"""Columns for `MEASURES`; RELION keeps columns that it does not know."""
_DIGITS = "%.15g"


def _read_pixels(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Any]:
    files = files_of(path, ".star", types, note)
    return picks_by_run(types, [_rows(f, types, geometries, note, centered=False) for f in files], note)


def _read_centered(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Any]:
    files = files_of(path, ".star", types, note)
    return picks_by_run(types, [_rows(f, types, geometries, note, centered=True) for f in files], note)


def _rows(file: pathlib.Path, types: Types, geometries: Geometries, note: Note, *, centered: bool) -> Rows:
    blocks = star.read_blocks(file)
    names = CENTERED if centered else PIXELS
    table = star.particles_of(blocks, file, names, (star.TOMOGRAM, star.MICROGRAPH))
    given, runs = star.columns(table, names, file), _runs(table, file, note)
    scale = Scale(file=file, blocks=blocks, table=table, runs=runs, geometries=geometries, note=note)
    subtomogram = None
    angles = star.triple(table, _SUBTOMOGRAM, file, note)
    if angles is not None and len(table):
        subtomogram = Rotation.from_euler("ZYZ", angles, degrees=True).inv()
    xyz = scale.from_center(given) if centered else scale.from_corner(given)
    return Rows(
        where=str(file),
        runs=runs,
        xyz_angstrom=xyz - shift_xyz_angstrom(scale, subtomogram),
        type_index=_type_index(blocks, table, file, types),
        score=next((star.numbers(table, name) for name in SCORES if name in table.columns), None),
        probability=star.numbers(table, PROBABILITY) if PROBABILITY in table.columns else None,
        orientation=star.orientation_of(table, _ANGLES, file, note, subtomogram),
        measured=_measures(table, types),
    )


def _measures(table: Any, types: Types) -> dict[str, Float[NDArray[np.float64], " n"]]:
    present = [name for name in _MEASURES if list(table.columns).count(name) == 1]
    rows = [measures_of(row, types, _MEASURES) for row in table[present].to_dict("records")] if present else []
    return dict(zip(MEASURES, np.asarray(rows).T, strict=True)) if rows else {}


def _runs(table: Any, file: pathlib.Path, note: Note) -> list[str]:
    if star.TOMOGRAM in table.columns:
        return star.names_of(table, star.TOMOGRAM, file)
    runs = [pathlib.PurePosixPath(name).name for name in star.names_of(table, star.MICROGRAPH, file)]
    note(f"{file}: has no {star.TOMOGRAM}; its tomograms were taken from {star.MICROGRAPH}")
    suffixes = (".tomostar", ".mrc", ".mrcs", ".rec", ".map", ".st")
    return [next((r[: -len(s)] for s in suffixes if r.endswith(s) and r != s), r) for r in runs]


def _type_index(blocks: star.Blocks, table: Any, path: pathlib.Path, types: Types) -> NDArray[np.int64]:
    """The type of each particle: by the file's own list of classes, its name, or because there is only one.

    Raises:
        InputError: it is not clear, or not one of the types.
    """
    listed = blocks.get(star.NAMES_BLOCK)
    if listed is None or CLASS not in table.columns:
        index = particle_of_file(path, types)
        if index is None:
            raise InputError(
                f"{path}: which particle it holds is not clear; name it <particle>.star with one of "
                f"{', '.join(t.name for t in types)}, or pass --particles with one particle"
            )
        return np.full(len(table), index, np.int64)
    if not {CLASS, star.NAME} <= set(listed.columns):
        raise InputError(f"{path}: its list of particle types needs the columns {CLASS} and {star.NAME}")
    index_of = {t.name: i for i, t in enumerate(types)}
    names = dict(zip(star.column(listed, CLASS, path).tolist(), listed[star.NAME].tolist(), strict=True))
    indices = []
    for number in star.column(table, CLASS, path).tolist():
        name = names.get(number)
        if name not in index_of:
            is_what = "not in its list" if name is None else reprlib.repr(name)
            raise InputError(f"{path}: class {number:g} is {is_what}; the types are {', '.join(index_of)}")
        indices.append(index_of[name])
    return np.asarray(indices, np.int64)


def _encode_pixels(picks: PicksByRun, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    pixels = {run: own.xyz_angstrom / geometries.of(run).pixel_size(run) for run, own in picks.items()}
    return _encode(picks, path, PIXELS, pixels)


def _encode_centered(picks: PicksByRun, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    centered = {run: own.xyz_angstrom - geometries.of(run).center_xyz_angstrom(run) for run, own in picks.items()}
    return _encode(picks, path, CENTERED, centered)


def _encode(
    picks: PicksByRun,
    path: pathlib.Path,
    names: Sequence[str],
    coordinates: Mapping[str, Float[NDArray[np.float64], "_ 3"]],
) -> dict[pathlib.Path, str]:
    """One file for all particles where `path` ends in `.star`, else a folder of `<particle>.star`.

    `coordinates` of each run belong to the columns `names`. There is no table of optics groups: RELION makes it from
    its tomograms where a file of picks has none (ParticleSet::read).
    """
    import pandas
    import starfile

    check_words(picks, "run", str(path))
    types = next(iter(picks.values())).types if picks else ()
    index = np.concatenate([np.zeros(0, np.int64), *(own.type_index for own in picks.values())])
    xyz = np.concatenate([np.zeros((0, 3)), *(coordinates[run] for run in picks)])
    table = {name: xyz[:, i] for i, name in enumerate(names)}
    # A tomogram called data_… at the start of a line would look like a new table, so names are not the first column.
    table[star.TOMOGRAM] = np.asarray([run for run, own in picks.items() for _ in range(len(own))], dtype=object)
    if any(own.orientation is not None for own in picks.values()):
        angles = [
            np.zeros((len(own), 3)) if own.orientation is None else star.euler_angles(own.orientation)
            for own in picks.values()
        ]
        table |= dict(zip(_ANGLES, np.concatenate(angles).T, strict=True))
    if picks and all(own.score is not None or not len(own) for own in picks.values()):
        table[SCORES[0]] = np.concatenate(
            [np.zeros(0), *(own.score for own in picks.values() if own.score is not None)]
        )

    if picks and all(own.probability is not None or not len(own) for own in picks.values()):
        table[PROBABILITY] = np.concatenate(
            [np.zeros(0), *(own.probability for own in picks.values() if own.probability is not None)]
        )
    shown = [shown_measures(own) for own in picks.values()]
    for name, column in zip(MEASURES, _MEASURES, strict=True):
        if any(name in own for own in shown):
            none = [[None] * len(own) for own in picks.values()]
            cells = [c for own, blank in zip(shown, none, strict=True) for c in own.get(name, blank)]
            missing: Any = star.NO_TYPE if name == "second_type" else np.nan
            table[column] = np.asarray([missing if c is None else c for c in cells], None if cells else object)

    def text(blocks: star.Blocks) -> str:
        return str(starfile.to_string(blocks, float_format=_DIGITS))

    if path.suffix.lower() != ".star":
        whole = pandas.DataFrame(table)
        return {path / f"{t.name}.star": text({"particles": whole[index == i]}) for i, t in enumerate(types)}
    classes = {CLASS: np.arange(1, len(types) + 1), star.NAME: [t.name for t in types]}
    particles = pandas.DataFrame({**table, CLASS: index + 1})
    return {path: text({"particles": particles, star.NAMES_BLOCK: pandas.DataFrame(classes)})}


def _recognizes_centered(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".star" and _has_column(path, CENTERED[0])


def _recognizes_pixels(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".star" and _has_column(path, PIXELS[0]) and not _recognizes_centered(path)


def _has_column(path: pathlib.Path, name: str) -> bool:
    head = head_of(path)
    return f"_{name}".encode() in head or f"_ptm{name[3:]}".encode() in head


def _mixed_scores(picks: PicksByRun) -> list[str]:
    lost = []
    for name, plural in (("score", "scores"), ("probability", "probabilities")):
        having = sum(len(p) for p in picks.values() if getattr(p, name) is not None)
        if having and any(getattr(p, name) is None and len(p) for p in picks.values()):
            lost.append(f"the {plural} of {having} picks, since others have none")
    return lost


RELION4 = PickFormat(
    name="relion4",
    title="STAR of RELION 4",
    recognizes=_recognizes_pixels,
    read=_read_pixels,
    encode=_encode_pixels,
    holds_probabilities=True,
    holds_orientations=True,
    holds_measures=True,
    further_losses=_mixed_scores,
)
RELION5 = PickFormat(
    name="relion5",
    title="STAR of RELION 5",
    recognizes=_recognizes_centered,
    read=_read_centered,
    encode=_encode_centered,
    holds_probabilities=True,
    holds_orientations=True,
    holds_measures=True,
    further_losses=_mixed_scores,
)
