"""RELION's `tomograms.star`, and the geometries from all sources together."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import star
from jaxcryo.picks.formats.relion_scale import PIXEL_SIZE
from jaxcryo.picks.geometry import Geometries, Note, TomogramGeometry, differ, geometries_of_tomograms, ignore
from jaxcryo.picks.run_names import same_run

_SIZES = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
_BINNING = "rlnTomoTomogramBinning"
_EXPECTED = "expected RELION's tomograms.star"


def read_tomograms(path: str | pathlib.Path, default: TomogramGeometry) -> Geometries:
    """The geometries that `tomograms.star` gives: sizes, pixel sizes, and the spacing of binned tomograms.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    path = pathlib.Path(path)
    table = next((b for b in star.read_blocks(path, _EXPECTED).values() if star.TOMOGRAM in b.columns), None)
    needed = (star.TOMOGRAM, PIXEL_SIZE, *_SIZES)
    missing = [name for name in needed if table is None or name not in table.columns]
    if table is None or missing:
        raise InputError(f"{path}: lacks the column {', '.join(missing)}; {_EXPECTED}")
    size, pixel = star.columns(table, _SIZES, path), star.column(table, PIXEL_SIZE, path)
    binning = star.column(table, _BINNING, path) if _BINNING in table.columns else None
    by_run = {}
    for i, run in enumerate(star.names_of(table, star.TOMOGRAM, path)):
        x, y, z = (int(n) if abs(n) < 2**31 else 0 for n in size[i].tolist())
        spacing = None if binning is None else float(pixel[i] * binning[i])
        by_run[run] = TomogramGeometry(
            pixel_size_angstrom=float(pixel[i]),
            unbinned_size_xyz=(x, y, z),
            voxel_spacing_xyz_angstrom=None if spacing is None else (spacing,) * 3,
        )
    return Geometries(default=default, by_run=by_run)


def known_geometries(
    default: TomogramGeometry,
    *,
    tomograms: str | pathlib.Path | None = None,
    runs: Sequence[Run] = (),
    note: Note = ignore,
) -> Geometries:
    """The geometry from options (`default`), then from `tomograms.star`, then from the tomograms' own files.

    Raises:
        InputError: tomograms.star cannot be read.
    """
    if tomograms is None:
        return geometries_of_tomograms(runs, default, note=note)
    given = read_tomograms(tomograms, default)
    _note_contradictions(given, str(tomograms), note)
    measured = geometries_of_tomograms(runs, dataclasses.replace(default, pixel_size_angstrom=None), note=note)
    by_run = dict(given.by_run)
    for run, own in measured.by_run.items():
        name = same_run(run, given.by_run)
        known = TomogramGeometry() if name is None else by_run.pop(name, given.by_run[name])
        if name not in (None, run):
            note(f"{tomograms}: its {name} was taken to be the tomogram {run}")
        by_run[run] = dataclasses.replace(
            known,
            voxel_spacing_xyz_angstrom=own.voxel_spacing_xyz_angstrom or known.voxel_spacing_xyz_angstrom,
            shape_xyz=own.shape_xyz,
        )
    return Geometries(default=default, by_run=by_run)


def _note_contradictions(geometries: Geometries, where: str, note: Note) -> None:
    said = geometries.default.pixel_size_angstrom
    others = {g.pixel_size_angstrom for g in geometries.by_run.values() if g.pixel_size_angstrom is not None}
    for other in sorted(other for other in others if said is not None and differ(said, other)):
        note(f"{where}: has pixels of {other:g} Å, and --pixel-size {said:g} was given and used")
