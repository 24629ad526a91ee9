"""Kaggle's submission table: `id,experiment,particle_type,x,y,z`, ångströms from the corner to three decimals."""

from __future__ import annotations

import pathlib

from jaxcryo.domain import Picks
from jaxcryo.picks.copick_json import read_submission, submission_text
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Types
from jaxcryo.picks.geometry import Frames, Note


def _read(path: pathlib.Path, types: Types, frames: Frames, note: Note) -> dict[str, Picks]:
    return read_submission(path, types)


def _encode(picks: PicksByRun, path: pathlib.Path, frames: Frames) -> dict[pathlib.Path, str]:
    return {path: submission_text(list(picks.values()))}


KAGGLE = PickFormat(
    name="kaggle",
    title="Kaggle's table",
    read=_read,
    encode=_encode,
    holds_scores=False,
    rounding_angstrom=0.001,
)
