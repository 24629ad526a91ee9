"""Candidates: picks down to a floor below the thresholds, so that other thresholds need no network.

They lie beside the picks, as `candidates/<run>.csv`, in the plain table of picks.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcryo.calling import command
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import format_of, read_picks, write_picks

FLOOR = 0.05
"""Heatmaps are noise below it."""
_FOLDER = "candidates"
_TABLE = format_of("csv")


def floor_of(types: Sequence[ParticleType]) -> float:
    """The score that candidates of these types are above, below every threshold."""
    return min(FLOOR, *(t.threshold for t in types))


def write_candidates(picks: Picks, out: str | pathlib.Path) -> pathlib.Path:
    """Writes the candidates of a run below `out`, whole, and returns the file.

    Raises:
        InputError: it cannot be written.
    """
    path = _path(out, picks.run)
    write_picks({picks.run: picks}, path, _TABLE, force=True)
    return path


def read_candidates(out: str | pathlib.Path, types: tuple[ParticleType, ...], runs: Iterable[str]) -> dict[str, Picks]:
    """The candidates of those of the runs that have some saved.

    Raises:
        InputError: a file cannot be used, or is about another run.
    """
    found = {}
    for run in runs:
        path = _path(out, run)
        if not path.is_file():
            continue
        own = read_picks(path, types, format_=_TABLE)
        if set(own) - {run}:
            raise InputError(f"{path}: holds picks of {', '.join(sorted(set(own) - {run}))}; expected {run} alone")
        found[run] = own.get(run, _none(run, types))
        if found[run].score is None:
            raise InputError(f"{path}: not every candidate has a score; run '{command('infer')}' again")
    return found


def _path(out: str | pathlib.Path, run: str) -> pathlib.Path:
    return pathlib.Path(out) / _FOLDER / f"{run}.csv"


def _none(run: str, types: tuple[ParticleType, ...]) -> Picks:
    return Picks(
        run=run,
        types=types,
        xyz_angstrom=np.zeros((0, 3)),
        type_index=np.zeros(0, np.int64),
        score=np.zeros(0),
    )
