"""Particle positions in files: copick's and Kaggle's JSON, and Kaggle's submission table."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, read_text, write_text

_IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
_SUBMISSION_COLUMNS = ("experiment", "particle_type", "x", "y", "z")


def read_picks_json(
    path: str | pathlib.Path, type_: ParticleType
) -> tuple[Float[NDArray[np.float64], "n 3"], Float[NDArray[np.float64], " n"] | None]:
    """x, y, z in ångströms from one file of Kaggle or copick, and the scores if every point has one.

    Raises:
        InputError: the file cannot be read, is about another particle, lacks fields, holds numbers that are not
            finite, or is not in ångströms.
    """
    path = pathlib.Path(path)
    expected = "expected picks as JSON with points[].location.x, y, z in ångströms"
    content = read_json(path, expected)
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise InputError(f"{path}: has no list 'points'; {expected}")
    unit = content.get("unit") or "angstrom"
    if unit != "angstrom":
        raise InputError(f"{path}: its unit is {reprlib.repr(unit)}; expected 'angstrom': convert the positions")
    about = content.get("pickable_object_name") or type_.name
    if about != type_.name:
        raise InputError(
            f"{path}: holds picks of {reprlib.repr(about)}; expected {type_.name!r}: rename the file or its content"
        )
    points = content["points"]
    xyz = np.zeros((len(points), 3))
    scores = []
    for i, point in enumerate(points):
        try:
            xyz[i] = [float(point["location"][axis]) for axis in "xyz"]
            if point.get("score") is not None:
                scores.append(float(point["score"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InputError(
                f"{path}: point {i} is {reprlib.repr(point)} ({type(error).__name__}: {error}); {expected}"
            ) from error
    bad = np.flatnonzero(~np.isfinite(xyz).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: point {bad[0]} is at {xyz[bad[0]].tolist()}; expected finite numbers: remove it")
    if scores and not np.isfinite(scores).all():
        raise InputError(f"{path}: has scores that are not finite; expected numbers: remove or replace them")
    return xyz, np.asarray(scores, np.float64) if points and len(scores) == len(points) else None


def read_picks_folder(folder: str | pathlib.Path, run: str, types: tuple[ParticleType, ...]) -> Picks:
    """All picks of a run from its `Picks` folder, by files `<particle>.json` or `<user>_<session>_<particle>.json`.

    A type without a file has no picks; files of other particles are passed over.

    Raises:
        InputError: no file is about any of the types, a type has several, or one cannot be used.
    """
    folder = pathlib.Path(folder)
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix == ".json" and not f.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected the picks of {run}") from error
    mine_of: dict[int, pathlib.Path] = {}
    for index, type_ in enumerate(types):
        mine = [f for f in files if particle_of(f) == type_.name]
        if len(mine) > 1:
            raise InputError(
                f"{folder}: {', '.join(f.name for f in mine)} are all about {type_.name}; expected one file per "
                "particle: move the others out of the folder"
            )
        if mine:
            mine_of[index] = mine[0]
    if not mine_of:
        raise InputError(
            f"{folder}: no picks of {', '.join(t.name for t in types)}; it holds "
            f"{', '.join(f.name for f in files) or 'no JSON file'}: expected <particle>.json or "
            "<user>_<session>_<particle>.json"
        )
    return read_picks_files(mine_of, run, types)


def read_picks_files(files: Mapping[int, pathlib.Path], run: str, types: tuple[ParticleType, ...]) -> Picks:
    """The picks of a run from a file for each type, by the type's index; raises as `read_picks_json` does."""
    xyz, type_index, scores = [np.zeros((0, 3))], [np.zeros(0, np.int64)], [np.zeros(0)]
    for index, file in files.items():
        file_xyz, file_scores = read_picks_json(file, types[index])
        xyz.append(file_xyz)
        type_index.append(np.full(len(file_xyz), index, np.int64))
        scores.append(np.full(len(file_xyz), np.nan) if file_scores is None else file_scores)
    score = np.concatenate(scores)
    return Picks(
        run=run,
        types=types,
        xyz_angstrom=np.concatenate(xyz),
        type_index=np.concatenate(type_index),
        score=score if len(score) and np.isfinite(score).all() else None,
    )


def read_copick_folder(
    root: str | pathlib.Path, types: tuple[ParticleType, ...], runs: Iterable[str] | None = None
) -> dict[str, Picks]:
    """The picks of each run under `<root>/ExperimentRuns`; all runs that have a `Picks` folder where `runs` is None.

    Raises:
        InputError: there is no such folder, it lacks a run, or a run's picks cannot be used.
    """
    folder = pathlib.Path(root) / "ExperimentRuns"
    available = sorted(f.parent.name for f in folder.glob("*/Picks"))
    if not available:
        raise InputError(f"{root}: has no ExperimentRuns/<run>/Picks; give the folder that holds ExperimentRuns")
    names = available if runs is None else list(runs)
    unknown = [n for n in names if n not in available]
    if unknown:
        raise InputError(f"{root}: no picks of {', '.join(unknown)}; the runs with picks are {', '.join(available)}")
    return {name: read_picks_folder(folder / name / "Picks", name, types) for name in names}


def write_copick_picks(
    picks: Picks, root: str | pathlib.Path, *, user_id: str = "jaxcryo", session_id: str = "0"
) -> list[pathlib.Path]:
    """Writes `<root>/ExperimentRuns/<run>/Picks/<user>_<session>_<particle>.json` for every type, also those without
    picks, and gives the paths.

    Raises:
        InputError: user or session contain `_` or `/`, or a file cannot be written.
    """
    return _write_all(copick_texts(picks, root, user_id=user_id, session_id=session_id))


def copick_texts(
    picks: Picks, root: str | pathlib.Path, *, user_id: str = "jaxcryo", session_id: str = "0"
) -> dict[pathlib.Path, str]:
    """What `write_copick_picks` writes: the text of each file."""
    for what, value in (("user", user_id), ("session", session_id)):
        if not value or "_" in value or "/" in value:
            raise InputError(f"the {what} of copick picks is {value!r}; it must be a name without '_' and '/'")
    return dict(
        _json_text(picks, index, root, f"{user_id}_{session_id}_{type_.name}.json", user_id, session_id)
        for index, type_ in enumerate(picks.types)
    )


def write_kaggle_picks(picks: Picks, root: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes `<root>/ExperimentRuns/<run>/Picks/<particle>.json` for every type, as the challenge's training data."""
    return _write_all(
        dict(
            _json_text(picks, index, root, f"{type_.name}.json", "curation", "0")
            for index, type_ in enumerate(picks.types)
        )
    )


def write_submission(all_picks: Sequence[Picks], path: str | pathlib.Path) -> None:
    """Writes Kaggle's table `id,experiment,particle_type,x,y,z`, in ångströms to three decimals."""
    write_text(path, submission_text(all_picks))


def submission_text(all_picks: Sequence[Picks]) -> str:
    """What `write_submission` writes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", *_SUBMISSION_COLUMNS))
    number = 0
    for picks in all_picks:
        for xyz, index in zip(picks.xyz_angstrom, picks.type_index, strict=True):
            writer.writerow((number, picks.run, picks.types[index].name, *(round(float(v), 3) for v in xyz)))
            number += 1
    return text.getvalue()


def read_submission(path: str | pathlib.Path, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    """Picks by run from a table with the columns `experiment,particle_type,x,y,z`; others are passed over.

    Raises:
        InputError: the file cannot be read, lacks a column, names an unknown particle, or holds a bad number.
    """
    index_of = {t.name: i for i, t in enumerate(types)}
    rows: dict[str, list[tuple[float, float, float, int]]] = {}
    text = read_text(path, "expected Kaggle's table as CSV")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [c for c in _SUBMISSION_COLUMNS if c not in (reader.fieldnames or ())]
        if missing:
            raise InputError(
                f"{path}: lacks the column {', '.join(missing)}; expected {', '.join(_SUBMISSION_COLUMNS)}"
            )
        for row in reader:
            run, values = _parse_row(row, index_of, f"{path}, line {reader.line_num}")
            rows.setdefault(run, []).append(values)
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read ({error}); expected Kaggle's table as CSV") from error
    return {run: _picks_of_rows(run, types, values) for run, values in rows.items()}


def _parse_row(
    row: Mapping[str, str | None], index_of: Mapping[str, int], where: str
) -> tuple[str, tuple[float, float, float, int]]:
    """The run of a row; its x, y, z and index of the type."""
    run, particle = row["experiment"], row["particle_type"]
    if not run or not particle:
        raise InputError(f"{where}: has no experiment or particle type; expected both: complete or remove the line")
    if particle not in index_of:
        raise InputError(
            f"{where}: unknown particle type {reprlib.repr(particle)}; the types are {', '.join(index_of)}"
        )
    try:
        x, y, z = (float(row[axis] or "") for axis in "xyz")
    except ValueError as error:
        raise InputError(f"{where}: {str(error)[:200]}; expected x, y, z as numbers in ångströms") from error
    if not np.isfinite([x, y, z]).all():
        raise InputError(f"{where}: the position is {x}, {y}, {z}; expected finite numbers in ångströms")
    return run, (x, y, z, index_of[particle])


def _picks_of_rows(run: str, types: tuple[ParticleType, ...], rows: Sequence[tuple[float, float, float, int]]) -> Picks:
    table = np.asarray(rows, np.float64).reshape(-1, 4)
    return Picks(run=run, types=types, xyz_angstrom=table[:, :3].copy(), type_index=table[:, 3].astype(np.int64))


def particle_of(file: pathlib.Path) -> str:
    """The particle a file name is about; names of particles hold no underscore."""
    parts = file.stem.split("_")
    return parts[2] if len(parts) == 3 else file.stem


def _write_all(texts: Mapping[pathlib.Path, str]) -> list[pathlib.Path]:
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _json_text(
    picks: Picks, index: int, root: str | pathlib.Path, file_name: str, user_id: str, session_id: str
) -> tuple[pathlib.Path, str]:
    chosen = picks.select(picks.type_index == index)
    points: list[dict[str, Any]] = []
    for i, (x, y, z) in enumerate(chosen.xyz_angstrom.tolist()):
        points.append({"location": {"x": x, "y": y, "z": z}, "transformation_": _IDENTITY, "instance_id": i})
        if chosen.score is not None:
            points[-1]["score"] = float(chosen.score[i])
    content = {
        "pickable_object_name": picks.types[index].name,
        "user_id": user_id,
        "session_id": session_id,
        "run_name": picks.run,
        "voxel_spacing": None,
        "unit": "angstrom",
        "points": points,
        "trust_orientation": False,
    }
    path = pathlib.Path(root) / "ExperimentRuns" / picks.run / "Picks" / file_name
    return path, json.dumps(content, indent=1) + "\n"
