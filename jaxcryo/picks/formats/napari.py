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
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Row, Types, particle_of_file, picks_of_rows
from jaxcryo.picks.formats.names import check_names
from jaxcryo.picks.formats.tables import number, read_rows, to_csv
from jaxcryo.picks.geometry import Frames, Note

AXES = ("axis-0", "axis-1", "axis-2")
_EXPECTED = "expected points of napari as CSV with the columns axis-0, axis-1, axis-2 (z, y, x in voxels)"


def _read(path: pathlib.Path, types: Types, frames: Frames, note: Note) -> dict[str, Picks]:
    files = sorted(f for f in path.glob("*.csv") if not f.name.startswith(".")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: has no CSV file; {_EXPECTED}, one file a run")
    found: dict[str, Picks] = {}
    for file in files:
        picks = _read_file(file, types, frames)
        if picks.run in found:
            raise InputError(f"{path}: several files are about {picks.run}; expected one file a run")
        found[picks.run] = picks
    return found


def _read_file(path: pathlib.Path, types: Types, frames: Frames) -> Picks:
    index_of = {t.name: i for i, t in enumerate(types)}
    named_after = particle_of_file(path, types)
    runs: set[str] = set()
    rows: list[Row] = []
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
        z, y, x = (number(cells[axis], axis, where) for axis in AXES)
        score = cells.get("score", "").strip()
        rows.append((x, y, z, index, number(score, "score", where) if score else None))
        runs.add(cells.get("run", path.stem))
    if len(runs) > 1:
        raise InputError(f"{path}: is about the runs {reprlib.repr(sorted(runs))}; expected one run a file")
    run = runs.pop() if runs else path.stem
    spacing = frames.of(run).voxel_spacing(run)
    return picks_of_rows(run, types, [(*(np.array(r[:3]) * spacing).tolist(), *r[3:]) for r in rows])


def _encode(picks: PicksByRun, path: pathlib.Path, frames: Frames) -> dict[pathlib.Path, str]:
    if path.suffix.lower() == ".csv" and len(picks) != 1:
        raise InputError(f"{path}: napari's points are one file a run, and there are {len(picks)} runs; give a folder")
    check_names(picks, "run", str(path))
    texts = {}
    for run, own in picks.items():
        zyx = (own.xyz_angstrom / frames.of(run).voxel_spacing(run))[:, ::-1].tolist()
        properties: list[tuple[object, ...]] = [(own.types[i].name, run) for i in own.type_index]
        header = ["index", *AXES, "particle", "run"]
        if own.score is not None:
            header.append("score")
            properties = [(*p, s) for p, s in zip(properties, own.score.tolist(), strict=True)]
        rows = [(i, *position, *p) for i, (position, p) in enumerate(zip(zyx, properties, strict=True))]
        texts[path if path.suffix.lower() == ".csv" else path / f"{run}.csv"] = to_csv(header, rows)
    return texts


NAPARI = PickFormat(
    name="napari",
    title="napari's points",
    read=_read,
    encode=_encode,
    holds_empty_runs=True,
)
