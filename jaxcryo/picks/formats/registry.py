"""The known formats of picks. Each of the project's own is a file beside this one and a line here.

Others come from outside: an installed package names one in its entry points (group `jaxcryo.pick_formats`), or a
program calls `register` (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import write_text
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Types, check_names
from jaxcryo.picks.formats.coordinates import COORDINATES
from jaxcryo.picks.formats.copick import COPICK
from jaxcryo.picks.formats.dynamo import DYNAMO
from jaxcryo.picks.formats.eman2 import EMAN2
from jaxcryo.picks.formats.imod import IMOD
from jaxcryo.picks.formats.napari import NAPARI
from jaxcryo.picks.formats.portal import PORTAL
from jaxcryo.picks.formats.relion import RELION4, RELION5
from jaxcryo.picks.formats.tables import KAGGLE, PLAIN
from jaxcryo.picks.formats.warp_m import WARP_M
from jaxcryo.picks.geometry import Geometries, Note, ignore
from jaxcryo.picks.run_names import renamed

_BUILT_IN = (PLAIN, KAGGLE, COPICK, RELION4, RELION5, DYNAMO, NAPARI, EMAN2, IMOD, COORDINATES, WARP_M, PORTAL)
"""A file may look like several formats; the later one in this order is the more specific."""
_GROUP = "jaxcryo.pick_formats"
_registered: dict[str, PickFormat] = {f.name: f for f in _BUILT_IN}

_FARTHEST_ANGSTROM = 1e7
"""A millimeter: anything farther from the corner is not a position in a tomogram."""
_FOREIGN = {
    ".em": "a motive list of TOM or ArtiaX; save the particles as a RELION STAR file there",
    ".cbox": "boxes of crYOLO; its folder COORDS beside it has them as .coords",
    ".cmm": "markers of ChimeraX; save their coordinates as a table run,particle,x,y,z",
    ".xml": "a particle list of PyTom; convert it there to a STAR file (convert.py -o star)",
    ".pkl": "a Python pickle, which is not read for safety; save a table run,particle,x,y,z",
}
"""Formats that users have but that are not read, and what to do instead."""


def register(added: PickFormat) -> None:
    """Makes a format known in this process, also to the commands; replaces one of the same name."""
    _registered[added.name] = added


def formats() -> Mapping[str, PickFormat]:
    """All by name, in the order in which they are offered."""
    return _registered | {name: f for name, f in _installed().items() if name not in _registered}


def writable_formats() -> dict[str, PickFormat]:
    """Those that picks can be written in."""
    return {name: f for name, f in formats().items() if f.encode is not None}


def format_of(name: str) -> PickFormat:
    """The format of a name.

    Raises:
        InputError: there is none.
    """
    found = formats()
    if name not in found:
        raise InputError(f"{name!r} is not a format of picks; expected one of {', '.join(found)}")
    return found[name]


@functools.cache
def _installed() -> dict[str, PickFormat]:
    found = [point.load() for point in importlib.metadata.entry_points(group=_GROUP)]
    return {f.name: f for f in found}


def detect(path: str | pathlib.Path) -> PickFormat:
    """The format of existing picks, by suffix and first lines; of a folder, by its files.

    Raises:
        InputError: nothing is there, or the format is not clear.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; expected picks in one of the formats {', '.join(formats())}")
    whole = _of(path)
    inside = [f for f in sorted(path.iterdir()) if f.is_file() and not f.name.startswith(".")] if path.is_dir() else []
    # A JSON file in a plain folder says nothing: copick's lie deeper, and every program writes some.
    kinds = {
        k.name: k for k in ([whole] if whole else map(_of, inside)) if k is not None and (whole or k is not COPICK)
    }
    if len(kinds) != 1:
        foreign = next((f for f in (path, *inside) if f.suffix.lower() in _FOREIGN), None)
        if foreign is not None and not kinds:
            raise InputError(f"{foreign}: cannot be read: it looks like {_FOREIGN[foreign.suffix.lower()]}")
        raise InputError(
            f"{path}: its format is not clear ({' or '.join(kinds) or 'none is recognised'}); choose it with --from: "
            f"{', '.join(formats())}"
        )
    return kinds.popitem()[1]


def _of(path: pathlib.Path) -> PickFormat | None:
    return next((f for f in reversed(list(formats().values())) if f.recognizes(path)), None)


def format_for(path: str | pathlib.Path, name: str | None) -> PickFormat:
    """The format to write: the one named, or the only one with the path's suffix.

    Raises:
        InputError: the name is unknown or of a format that is only read, or none was given where it is needed.
    """
    known = writable_formats()
    if name in known:
        return known[name]
    if name is not None and name in formats():
        raise InputError(f"{formats()[name].title} is only read; expected one of {', '.join(known)}")
    if name is not None:
        raise InputError(f"{name!r} is not a format of picks; expected one of {', '.join(known)}")
    suffix = pathlib.Path(path).suffix.lower()
    fitting = [f for f in known.values() if f.suffix == suffix and suffix]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(f"{path}: which format to write is not clear; choose it with --to: {', '.join(known)}")


def read_picks(
    path: str | pathlib.Path,
    types: Types,
    geometries: Geometries | None = None,
    *,
    format_: PickFormat | None = None,
    runs: Sequence[str] = (),
    note: Note = ignore,
) -> dict[str, Picks]:
    """Picks by run, sorted by name, from any of the formats; detected where `format_` is None.

    Runs whose name is another program's variant of one of `runs`, or of the tomograms in `geometries`, get that
    name.

    Raises:
        InputError: they cannot be read, a geometry lacks what the format needs, or a name or a position is not valid.
    """
    path = pathlib.Path(path)
    geometries = Geometries() if geometries is None else geometries
    check_names([t.name for t in types], "particle type", str(path))
    chosen = detect(path) if format_ is None else format_
    try:
        with np.errstate(over="ignore"):  # what is too far away is refused below
            found = chosen.read(path, types, geometries, note)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as {chosen.title} ({error.strerror or error})") from error
    check_names(found, "run", str(path))
    new_names = renamed(found, list(runs) or list(geometries.by_run))
    for old, new in new_names.items():
        note(f"{path}: its {old} was taken to be the run {new}")
    found = {new_names.get(run, run): picks for run, picks in found.items()}
    found = {run: dataclasses.replace(picks, run=run) for run, picks in found.items()}
    for run, picks in found.items():
        far = np.flatnonzero(~np.all(np.abs(picks.xyz_angstrom) <= _FARTHEST_ANGSTROM, axis=1))
        if len(far):
            raise InputError(
                f"{path}: pick {far[0] + 1} of {run} is at {picks.xyz_angstrom[far[0]].tolist()} Å; expected a "
                "position in a tomogram: check the file, and the pixel size"
            )
        geometries.note_places(picks, note)
    return dict(sorted(found.items()))


def write_picks(
    picks: PicksByRun,
    path: str | pathlib.Path,
    format_: PickFormat,
    geometries: Geometries | None = None,
    *,
    force: bool = False,
) -> list[pathlib.Path]:
    """Writes picks in a format, each file whole, and returns the files.

    Raises:
        InputError: a file already exists and no `force`, a geometry lacks what the format needs, it cannot hold a
            name or is only read, or a file cannot be written.
    """
    path = pathlib.Path(path)
    texts = _encoded(picks, path, format_, Geometries() if geometries is None else geometries)
    present = [f for f in texts if f.exists() or f.is_symlink()]
    if present and not force:
        more = f" and {len(present) - 1} more" if len(present) > 1 else ""
        raise InputError(f"{present[0]}{more} already exists; choose another output or pass --force")
    for file, text in texts.items():
        write_text(file, text)
    return list(texts)


def check_writable(format_: PickFormat, path: str | pathlib.Path, runs: Iterable[str], geometries: Geometries) -> None:
    """Raises InputError where the format cannot hold a run's name, or needs more than is known of its geometry."""
    none = np.zeros((0, 3)), np.zeros(0, np.int64)
    empty = {run: Picks(run=run, types=(), xyz_angstrom=none[0], type_index=none[1]) for run in runs}
    _encoded(empty, pathlib.Path(path), format_, geometries)


def _encoded(
    picks: PicksByRun, path: pathlib.Path, format_: PickFormat, geometries: Geometries
) -> dict[pathlib.Path, str]:
    if format_.encode is None:
        raise InputError(f"{format_.title} is only read; expected one of {', '.join(writable_formats())}")
    check_names(picks, "run", str(path))
    check_names({t.name for p in picks.values() for t in p.types}, "particle type", str(path))
    return format_.encode(picks, path, geometries)


def losses(picks: PicksByRun, format_: PickFormat) -> list[str]:
    """Phrases for what the format cannot hold of these picks."""
    lost = []
    held = {
        "score": format_.holds_scores,
        "probability": format_.holds_probabilities,
        "orientation": format_.holds_orientations,
    }
    for name, plural in (("score", "scores"), ("probability", "probabilities"), ("orientation", "orientations")):
        having = sum(len(p) for p in picks.values() if getattr(p, name) is not None)
        if having and not held[name]:
            lost.append(f"the {plural} of {having} picks")
    beside = sum(len(p) for p in picks.values() if p.measured)
    if beside and not format_.holds_measures:
        lost.append(f"the second types and distances of {beside} picks")
    if format_.further_losses is not None:
        lost += format_.further_losses(picks)
    empty = [run for run, p in picks.items() if not len(p)]
    if empty and not format_.holds_empty_runs:
        lost.append(f"that {', '.join(empty)} {'has' if len(empty) == 1 else 'have'} no picks")
    if format_.rounding_angstrom is not None:
        lost.append(f"positions finer than {format_.rounding_angstrom:g} Å")
    return lost
