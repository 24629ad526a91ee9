"""The formats by name: which one a file is in, reading it, writing, and what would be lost."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Types
from jaxcryo.picks.formats.copick import COPICK
from jaxcryo.picks.formats.dynamo import DYNAMO
from jaxcryo.picks.formats.kaggle import KAGGLE
from jaxcryo.picks.formats.names import check_names
from jaxcryo.picks.formats.napari import AXES, NAPARI
from jaxcryo.picks.formats.plain import PLAIN
from jaxcryo.picks.formats.relion import CENTERED, PIXELS, RELION4, RELION5
from jaxcryo.picks.formats.tables import columns_of
from jaxcryo.picks.geometry import Frames, Note, ignore

FORMATS = {f.name: f for f in (KAGGLE, COPICK, RELION4, RELION5, DYNAMO, NAPARI, PLAIN)}
_SNIFFED_BYTES = 2**18
_FARTHEST_ANGSTROM = 1e7
"""A millimetre: what is farther from the corner is not a position in a tomogram."""


def detect(path: str | pathlib.Path) -> PickFormat:
    """The format of picks that are there, by suffix and first lines; a folder's by its files.

    Raises:
        InputError: nothing is there, or it is not clear.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; expected picks in one of the formats {', '.join(FORMATS)}")
    if path.is_dir():
        if (path / "ExperimentRuns").is_dir():
            return COPICK
        files = sorted(f for s in (".star", ".tbl", ".csv") for f in path.glob(f"*{s}") if f.is_file())
        kinds = {k.name: k for k in map(_of_file, files) if k is not None}
    else:
        kind = _of_file(path)
        kinds = {} if kind is None else {kind.name: kind}
    if len(kinds) != 1:
        raise InputError(
            f"{path}: its format is not clear ({' or '.join(kinds) or 'none is recognised'}); say which with --from: "
            f"{', '.join(FORMATS)}"
        )
    return kinds.popitem()[1]


def _of_file(path: pathlib.Path) -> PickFormat | None:
    suffix = path.suffix.lower()
    if suffix in (".json", ".tbl"):
        return COPICK if suffix == ".json" else DYNAMO
    if suffix == ".star":
        head = _head(path)
        if f"_{CENTERED[0]}".encode() in head:
            return RELION5
        return RELION4 if f"_{PIXELS[0]}".encode() in head else None
    if suffix == ".csv":
        found = set(columns_of(path))
        if set(AXES) <= found:
            return NAPARI
        return KAGGLE if {"experiment", "particle_type"} <= found else PLAIN
    return None


def _head(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_SNIFFED_BYTES)
    except OSError:
        return b""


def format_for(path: str | pathlib.Path, name: str | None) -> PickFormat:
    """The format to write: the one named, or the only one with the path's suffix.

    Raises:
        InputError: the name is unknown, or none was given where it is needed.
    """
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"{name!r} is not a format of picks; expected one of {', '.join(FORMATS)}")
        return FORMATS[name]
    if pathlib.Path(path).suffix.lower() == ".tbl":
        return DYNAMO
    raise InputError(f"{path}: which format to write is not clear; say it with --to: {', '.join(FORMATS)}")


def read_picks(
    path: str | pathlib.Path,
    types: Types,
    frames: Frames | None = None,
    *,
    format_: PickFormat | None = None,
    note: Note = ignore,
) -> dict[str, Picks]:
    """Picks by run, sorted by name, from any of the formats; detected where `format_` is None.

    Raises:
        InputError: they cannot be read, a frame lacks what the format needs, or a name or a position is not one.
    """
    path = pathlib.Path(path)
    frames = Frames() if frames is None else frames
    check_names([t.name for t in types], "particle type", str(path))
    chosen = detect(path) if format_ is None else format_
    try:
        found = chosen.read(path, types, frames, note)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as {chosen.title} ({error.strerror or error})") from error
    check_names(found, "run", str(path))
    for run, picks in found.items():
        far = np.flatnonzero(~np.all(np.abs(picks.xyz_angstrom) <= _FARTHEST_ANGSTROM, axis=1))
        if len(far):
            raise InputError(
                f"{path}: pick {far[0] + 1} of {run} is at {picks.xyz_angstrom[far[0]].tolist()} Å; expected a "
                "position in a tomogram: check the file, and the pixel size"
            )
    return dict(sorted(found.items()))


def write_picks(
    picks: PicksByRun,
    path: str | pathlib.Path,
    format_: PickFormat,
    frames: Frames | None = None,
    *,
    force: bool = False,
) -> list[pathlib.Path]:
    """Writes picks in a format, each file whole, and gives the files.

    Raises:
        InputError: a file is there already and no `force`, a frame lacks what the format needs, it cannot hold a
            name, or a file cannot be written.
    """
    path = pathlib.Path(path)
    check_names(picks, "run", str(path))
    check_names({t.name for p in picks.values() for t in p.types}, "particle type", str(path))
    texts = format_.encode(picks, path, Frames() if frames is None else frames)
    present = [f for f in texts if f.exists() or f.is_symlink()]
    if present and not force:
        more = f" and {len(present) - 1} more" if len(present) > 1 else ""
        raise InputError(f"{present[0]}{more}: there already; choose another output, or replace it with --force")
    for file, text in texts.items():
        write_text(file, text)
    return list(texts)


def check_writable(format_: PickFormat, path: str | pathlib.Path, runs: Iterable[str], frames: Frames) -> None:
    """Raises InputError where the format cannot hold a run's name, or needs more than is known of its frame."""
    none = np.zeros((0, 3)), np.zeros(0, np.int64)
    empty = {run: Picks(run=run, types=(), xyz_angstrom=none[0], type_index=none[1]) for run in runs}
    check_names(empty, "run", str(path))
    format_.encode(empty, pathlib.Path(path), frames)


def losses(picks: PicksByRun, format_: PickFormat) -> list[str]:
    """What of these picks the format cannot hold, in phrases."""
    lost = []
    scored = sum(len(p) for p in picks.values() if p.score is not None)
    unscored = any(p.score is None and len(p) for p in picks.values())
    if scored and not format_.holds_scores:
        lost.append(f"the scores of {scored} picks")
    elif scored and unscored and format_.name.startswith("relion"):
        lost.append(f"the scores of {scored} picks, since others have none")
    elif unscored and format_ is DYNAMO:
        lost.append("that picks have no scores (column 10 is 0)")
    empty = [run for run, p in picks.items() if not len(p)]
    if empty and not format_.holds_empty_runs:
        lost.append(f"that {', '.join(empty)} {'has' if len(empty) == 1 else 'have'} no picks")
    if format_.rounding_angstrom is not None:
        lost.append(f"positions finer than {format_.rounding_angstrom:g} Å")
    return lost


def above_thresholds(picks: Picks, thresholds: dict[str, float]) -> Picks:
    """The picks whose score is above the threshold of their type; a type without one keeps all.

    Raises:
        InputError: picks have no scores, or a threshold is for an unknown type.
    """
    names = [t.name for t in picks.types]
    unknown = sorted(set(thresholds) - set(names))
    if unknown:
        raise InputError(f"thresholds of {', '.join(unknown)}; the types are {', '.join(names)}: give --particles")
    if picks.score is None and len(picks):
        raise InputError(f"{picks.run}: its picks have no scores; thresholds need them: start from copick's picks")
    types = tuple(dataclasses.replace(t, threshold=thresholds.get(t.name, t.threshold)) for t in picks.types)
    limits = np.asarray([thresholds.get(name, -np.inf) for name in names])
    score = np.zeros(0) if picks.score is None else picks.score
    return dataclasses.replace(picks.select(score > limits[picks.type_index]), types=types)
