"""Picks in copick's and Kaggle's JSON, one file a run and particle."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import MEASURES, ParticleType, Picks, concatenate_picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.picks.geometry import Note, ignore
from jaxcryo.picks.measures import measures_of, shown_measures
from jaxcryo.picks.run_names import listed

_IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
_EXPECTED = "expected picks as JSON with points[].location.x, y, z in ångströms"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonPicks:
    """The columns of a file's points."""

    xyz_angstrom: Float[NDArray[np.float64], "n 3"]
    score: Float[NDArray[np.float64], " n"] | None
    orientation: Float[NDArray[np.float64], "n 3 3"] | None
    probability: Float[NDArray[np.float64], " n"] | None
    measured: Mapping[str, Float[NDArray[np.float64], " n"]]


def read_picks_json(
    path: str | pathlib.Path, type_: ParticleType, *, types: tuple[ParticleType, ...] = (), note: Note = ignore
) -> JsonPicks:
    """The points of one file of Kaggle or copick; with scores if every point has one that is a number.

    `types` are the allowed values of a point's second type.

    A point is at its location plus the translation of its transformation (copick, docs/geometry.md, "Relationship
    Between Position and Transform"). If all rotations are the identity (copick's default), there are no orientations.

    Raises:
        InputError: the file cannot be read, is about another particle, lacks fields, holds positions that are not
            finite, or is not in ångströms.
    """
    return picks_of_json(read_json(path, _EXPECTED), path, type_.name, types=types, note=note)


def picks_of_json(
    content: Any,
    path: object,
    particle: str | None,
    *,
    types: tuple[ParticleType, ...] = (),
    note: Note = ignore,
) -> JsonPicks:
    """As `read_picks_json`, of a file's content, which lies at `path`; None is any particle."""
    if isinstance(content, dict) and "points" in content and content["points"] is None:
        content = {**content, "points": []}  # as copick has it for picks that were begun
    if not isinstance(content, dict) or not isinstance(content.get("points"), list):
        raise InputError(f"{path}: has no list 'points'; {_EXPECTED}")
    unit = content.get("unit") or "angstrom"
    if unit != "angstrom":
        raise InputError(f"{path}: its unit is {reprlib.repr(unit)}; expected 'angstrom': convert the positions")
    about = content.get("pickable_object_name") or particle
    if particle is not None and about != particle:
        raise InputError(f"{path}: holds picks of {reprlib.repr(about)}; expected {particle!r}: correct one of them")
    points = content["points"]
    xyz, transformation = np.zeros((len(points), 3)), np.tile(np.eye(4), (len(points), 1, 1))
    score, chance = np.full(len(points), np.nan), np.full(len(points), np.nan)
    beside = np.full((len(points), len(MEASURES)), np.nan)
    for i, point in enumerate(points):
        try:
            xyz[i] = [float(point["location"][axis]) for axis in "xyz"]
            given = point.get("transformation_")
            if given is not None:
                transformation[i] = np.asarray(given, np.float64).reshape(4, 4)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InputError(
                f"{path}: point {i} is {reprlib.repr(point)} ({type(error).__name__}: {error}); {_EXPECTED}"
            ) from error
        score[i], chance[i] = _number_or_nan(point.get("score")), _number_or_nan(point.get("probability"))
        beside[i] = measures_of(point, types)
    xyz += transformation[:, :3, 3]
    bad = np.flatnonzero(~np.isfinite(xyz).all(axis=1))
    if len(bad):
        raise InputError(f"{path}: point {bad[0]} is at {xyz[bad[0]].tolist()}; expected finite numbers: remove it")
    without = int(np.isnan(score).sum())
    if 0 < without < len(points):
        note(f"{path}: {without} of {len(points)} points have no score that is a number; no scores were read")
    return JsonPicks(
        xyz_angstrom=xyz,
        score=score if len(points) and not without else None,
        orientation=orientation_of(transformation[:, :3, :3], path, note),
        probability=chance if len(points) and not np.isnan(chance).any() else None,
        measured={n: v for n, v in zip(MEASURES, beside.T, strict=True) if np.isfinite(v).any()},
    )


def _number_or_nan(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan
    return number if np.isfinite(number) else np.nan


def orientation_of(
    matrices: Float[NDArray[np.float64], "n 3 3"], path: object, note: Note
) -> Float[NDArray[np.float64], "n 3 3"] | None:
    """The rotations, with the identity in place of what is not a rotation; None if all are the identity."""
    with np.errstate(over="ignore", invalid="ignore"):
        products = matrices @ matrices.transpose(0, 2, 1) - np.eye(3)
        rotations = (np.abs(products) < 1e-3).all(axis=(1, 2)) & (np.linalg.det(np.nan_to_num(matrices)) > 0)
    if not rotations.all():
        note(f"{path}: {int((~rotations).sum())} points have a transformation that is not a rotation; it was left out")
    matrices = np.where(rotations[:, None, None], matrices, np.eye(3))
    return matrices if np.any(np.abs(matrices - np.eye(3)) > 1e-12) else None


def read_picks_folder(
    folder: str | pathlib.Path,
    run: str,
    types: tuple[ParticleType, ...],
    *,
    user: str | None = None,
    session: str | None = None,
    note: Note = ignore,
) -> Picks:
    """All picks of a run from its `Picks` folder, by files `<particle>.json` or `<user>_<session>_<particle>.json`.

    `user` and `session` choose among files. A type without a file has no picks; files of other particles are passed
    over.

    Raises:
        InputError: no file is about any of the types, a type has several, or one cannot be used.
    """
    folder = pathlib.Path(folder)
    files = _chosen(folder, run, user, session)
    mine_of: dict[int, pathlib.Path] = {}
    for index, type_ in enumerate(types):
        mine = [f for f in files if particle_of(f) == type_.name]
        if len(mine) > 1:
            raise InputError(
                f"{folder}: {', '.join(f.name for f in mine)} are all about {type_.name}; choose with --picks-user "
                "and --picks-session"
            )
        if mine:
            mine_of[index] = mine[0]
    if not mine_of:
        raise InputError(
            f"{folder}: no picks of {', '.join(t.name for t in types)}{_by(user, session)}; it holds "
            f"{', '.join(f.name for f in _json_files(folder, run)) or 'no JSON file'}: expected <particle>.json or "
            "<user>_<session>_<particle>.json"
        )
    return read_picks_files(mine_of, run, types, note=note)


def _json_files(folder: pathlib.Path, run: str) -> list[pathlib.Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.suffix == ".json" and not f.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); expected the picks of {run}") from error


def _chosen(folder: pathlib.Path, run: str, user: str | None, session: str | None) -> list[pathlib.Path]:
    return [
        f
        for f in _json_files(folder, run)
        for owner in [f.stem.split("_")[:2] if len(f.stem.split("_")) == 3 else [None, None]]
        if user in (None, owner[0]) and session in (None, owner[1])
    ]


def _by(user: str | None, session: str | None) -> str:
    return f"{'' if user is None else f' by {user}'}{'' if session is None else f' in session {session}'}"


def read_picks_files(
    files: Mapping[int, pathlib.Path], run: str, types: tuple[ParticleType, ...], *, note: Note = ignore
) -> Picks:
    """The picks of a run from a file for each type, by the type's index; raises as `read_picks_json` does."""
    parts = []
    for index, file in files.items():
        own = read_picks_json(file, types[index], types=types, note=note)
        kinds = np.full(len(own.xyz_angstrom), index, np.int64)
        parts.append(Picks(run=run, types=types, type_index=kinds, **vars(own)))
    return concatenate_picks([p for p in parts if len(p)], run, types)


def read_copick_folder(
    root: str | pathlib.Path,
    types: tuple[ParticleType, ...],
    runs: Iterable[str] | None = None,
    *,
    user: str | None = None,
    session: str | None = None,
    note: Note = ignore,
) -> dict[str, Picks]:
    """The picks of each run under `<root>/ExperimentRuns`; of all that have such picks where `runs` is None.

    Raises:
        InputError: there is no such folder, it lacks a run, no run has such picks, or a file cannot be used.
    """
    folder = pathlib.Path(root) / "ExperimentRuns"
    available = sorted(f.parent.name for f in folder.glob("*/Picks"))
    if not available:
        raise InputError(f"{root}: has no ExperimentRuns/<run>/Picks; expected the folder that holds ExperimentRuns")
    names = available if runs is None else list(runs)
    unknown = [n for n in names if n not in available]
    if unknown:
        raise InputError(f"{root}: no picks of {', '.join(unknown)}; the runs with picks are {', '.join(available)}")
    if runs is None:
        wanted = {t.name for t in types}
        having = [
            n for n in names if any(particle_of(f) in wanted for f in _chosen(folder / n / "Picks", n, user, session))
        ]
        if having and len(having) < len(names):
            without = [n for n in names if n not in having]
            note(f"{root}: {listed(without)} has no picks of {', '.join(sorted(wanted))}{_by(user, session)}")
        names = having or names
    return {n: read_picks_folder(folder / n / "Picks", n, types, user=user, session=session, note=note) for n in names}


def write_copick_picks(
    picks: Picks, root: str | pathlib.Path, *, user_id: str = "jaxcryo", session_id: str = "0"
) -> list[pathlib.Path]:
    """Writes `<root>/ExperimentRuns/<run>/Picks/<user>_<session>_<particle>.json` for every type, also those without
    picks, and returns the paths.

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


def particle_of(file: pathlib.Path) -> str:
    """The particle of a file name; names of particles contain no underscore."""
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
    shown = shown_measures(chosen)
    for i, (x, y, z) in enumerate(chosen.xyz_angstrom.tolist()):
        matrix = _IDENTITY if chosen.orientation is None else _transformation(chosen.orientation[i])
        points.append({"location": {"x": x, "y": y, "z": z}, "transformation_": matrix, "instance_id": i})
        if chosen.score is not None:
            points[-1]["score"] = float(chosen.score[i])
        if chosen.probability is not None:
            points[-1]["probability"] = float(chosen.probability[i])
        points[-1] |= {name: values[i] for name, values in shown.items() if values[i] is not None}
    content = {
        "pickable_object_name": picks.types[index].name,
        "user_id": user_id,
        "session_id": session_id,
        "run_name": picks.run,
        "voxel_spacing": None,
        "unit": "angstrom",
        "points": points,
        "trust_orientation": chosen.orientation is not None,
    }
    path = pathlib.Path(root) / "ExperimentRuns" / picks.run / "Picks" / file_name
    return path, json.dumps(content, indent=1) + "\n"


def _transformation(orientation: Float[NDArray[np.float64], "3 3"]) -> list[list[float]]:
    return [*([*row, 0.0] for row in orientation.tolist()), [0.0, 0.0, 0.0, 1.0]]
