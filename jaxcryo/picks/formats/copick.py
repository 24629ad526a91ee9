"""copick's JSON, one file a run and particle: ångströms from the corner, with scores and orientations.

Reads the challenge's files as well.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import reprlib

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json
from jaxcryo.picks.copick_json import copick_texts, particle_of, read_copick_folder, read_picks_json
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Types, check_names
from jaxcryo.picks.geometry import Geometries, Note


def copick_by(user: str | None, session: str | None) -> PickFormat:
    """The format, whose folders are read for the picks of a user and a session."""
    return dataclasses.replace(COPICK, read=functools.partial(_read, user=user, session=session))


def _read(
    path: pathlib.Path,
    types: Types,
    geometries: Geometries,
    note: Note,
    *,
    user: str | None = None,
    session: str | None = None,
) -> dict[str, Picks]:
    if not path.is_dir():
        return _read_file(path, types, note)
    names = {t.name for t in types}
    others = {particle_of(f) for f in path.glob("ExperimentRuns/*/Picks/*.json")} - names
    if others:
        note(f"{path}: skipped picks of {reprlib.repr(sorted(others))}; --particles can name them")
    return read_copick_folder(path, types, user=user, session=session, note=note)


def _read_file(path: pathlib.Path, types: Types, note: Note) -> dict[str, Picks]:
    """One file; it names its run, or the folders around it do."""
    content = read_json(path, "expected picks of copick or Kaggle as JSON")
    said = content if isinstance(content, dict) else {}
    particle = said.get("pickable_object_name") or particle_of(path)
    index = next((i for i, t in enumerate(types) if t.name == particle), None)
    if index is None:
        raise InputError(
            f"{path}: is about {reprlib.repr(particle)}; the types are {', '.join(t.name for t in types)}: pass "
            "--particles with this particle"
        )
    run = said.get("run_name")
    if run is None and path.absolute().parent.name == "Picks":
        run = path.absolute().parents[1].name
    if not isinstance(run, str):
        raise InputError(
            f"{path}: does not name its run; expected 'run_name', or a place in ExperimentRuns/<run>/Picks"
        )
    own = read_picks_json(path, types[index], types=types, note=note)
    kinds = np.full(len(own.xyz_angstrom), index, np.int64)
    return {run: Picks(run=run, types=types, type_index=kinds, **vars(own))}


def _encode(picks: PicksByRun, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    texts: dict[pathlib.Path, str] = {}
    for run, own in picks.items():
        check_names([t.name for t in own.types], "particle", run)
        texts |= copick_texts(own, path)
    return texts


def _recognizes(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".json" if path.is_file() else (path / "ExperimentRuns").is_dir()


COPICK = PickFormat(
    name="copick",
    title="copick's picks",
    recognizes=_recognizes,
    read=_read,
    encode=_encode,
    in_angstrom=True,
    place=".",
    holds_probabilities=True,
    holds_orientations=True,
    holds_measures=True,
    holds_empty_runs=True,
)
