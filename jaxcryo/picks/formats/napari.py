"""napari's points: `index,axis-0,axis-1,axis-2` with properties, one file a run.

Axes are z, y, x in voxels of the tomogram counted from 0 (napari_builtins/io/_write.py, `napari_write_points`). Over a
layer whose scale is the voxel spacing they need the same scale; copick's napari plugin puts picks at the same places.
"""

from __future__ import annotations

import pathlib
import reprlib

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.formats.base import (
    PickFormat,
    PicksByRun,
    Rows,
    Types,
    check_names,
    particle_of_file,
    picks_by_run,
)
from jaxcryo.picks.formats.tables import (
    columns_of,
    number,
    optional_arrays,
    optional_cells,
    optional_columns,
    read_rows,
    to_csv,
)
from jaxcryo.picks.geometry import Geometries, Note

AXES = ("axis-0", "axis-1", "axis-2")
_EXPECTED = "expected points of napari as CSV with the columns axis-0, axis-1, axis-2 (z, y, x in voxels)"


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    files = sorted(f for f in path.glob("*.csv") if not f.name.startswith(".")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: has no CSV file; {_EXPECTED}, one file a run")
    found: dict[str, Picks] = {}
    for file in files:
        picks = _read_file(file, types, geometries, note)
        if picks.run in found:
            raise InputError(f"{path}: several files are about {picks.run}; expected one file a run")
        found[picks.run] = picks
    return found


def _read_file(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> Picks:
    index_of = {t.name: i for i, t in enumerate(types)}
    named_after = particle_of_file(path, types)
    runs: list[str] = []
    kinds: list[int] = []
    zyx: list[list[float]] = []
    values: list[list[float]] = []
    for where, cells in read_rows(path, _EXPECTED, [(axis,) for axis in AXES]):
        if "axis-3" in cells:
            raise InputError(f"{where}: has more than three axes; {_EXPECTED}")
        particle = cells.get("particle")
        index = named_after if particle is None else index_of.get(particle)
        if index is None:
            about = "an unnamed particle" if particle is None else reprlib.repr(particle)
            raise InputError(
                f"{where}: is about {about}; expected a column 'particle' with one of {', '.join(index_of)}"
            )
        zyx.append([number(cells[axis], axis, where) for axis in AXES])
        kinds.append(index)
        values.append(optional_columns(cells, types))
        runs.append(cells.get("run", path.stem))
    if len(set(runs)) > 1:
        raise InputError(f"{path}: is about the runs {reprlib.repr(sorted(set(runs)))}; expected one run a file")
    run = runs[0] if runs else path.stem
    spacing = geometries.of(run).voxel_spacing(run)
    rows = Rows(
        where=str(path),
        runs=runs,
        xyz_angstrom=np.asarray(zyx, np.float64).reshape(-1, 3)[:, ::-1] * spacing,
        type_index=np.asarray(kinds, np.int64),
        **optional_arrays(values, str(path), note),
    )
    none = Picks(run=run, types=types, xyz_angstrom=np.zeros((0, 3)), type_index=np.zeros(0, np.int64))
    return picks_by_run(types, [rows], note).get(run, none)


def _encode(picks: PicksByRun, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    if path.suffix.lower() == ".csv" and len(picks) != 1:
        raise InputError(f"{path}: napari needs one file per run, and there are {len(picks)} runs; pass a folder")
    check_names(picks, "run", str(path))
    texts = {}
    for run, own in picks.items():
        zyx = (own.xyz_angstrom / geometries.of(run).voxel_spacing(run))[:, ::-1].tolist()
        names, cells = optional_cells(own)
        rows = [
            (i, *position, own.types[index].name, run, *further)
            for i, (position, index, further) in enumerate(zip(zyx, own.type_index, cells, strict=True))
        ]
        file = path if path.suffix.lower() == ".csv" else path / f"{run}.csv"
        texts[file] = to_csv(("index", *AXES, "particle", "run", *names), rows)
    return texts


def _recognizes(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".csv" and set(AXES) <= set(columns_of(path))


NAPARI = PickFormat(
    name="napari",
    title="napari's points",
    recognizes=_recognizes,
    read=_read,
    encode=_encode,
    holds_probabilities=True,
    holds_orientations=True,
    holds_measures=True,
    holds_empty_runs=True,
)
