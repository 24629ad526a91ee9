"""Picks in further formats beside the ones that inference always writes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from jaxcryo.cli.geometry import frames_of, say
from jaxcryo.cli.infer import InferOptions
from jaxcryo.domain import Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import FORMATS, Frames, check_writable, losses, write_picks

# Kaggle's table and copick's picks are what inference writes in any case.
_PLACES = {"kaggle": None, "copick": None, "csv": "picks.csv"}


def export_frames(options: InferOptions, out: pathlib.Path, runs: Sequence[Run]) -> Frames:
    """What the chosen formats need to know of the runs.

    Raises:
        InputError: it is not known, or a format cannot hold a run's name.
    """
    places = _places(options, out)
    if not places:
        return Frames()
    frames = frames_of(options.geometry, options.input.voxel_spacing, runs, say)
    for name, place in places.items():
        check_writable(FORMATS[name], place, [r.name for r in runs], frames)
    return frames


def write_exports(options: InferOptions, out: pathlib.Path, found: Mapping[str, Picks], frames: Frames) -> list[str]:
    """Writes the picks in the chosen formats, replacing earlier ones; gives a line for each."""
    lines = []
    for name, place in _places(options, out).items():
        write_picks(found, place, FORMATS[name], frames, force=True)
        lost = losses(found, FORMATS[name])
        lines.append(f"  {place}  ({FORMATS[name].title}{''.join(f'; not {phrase}' for phrase in lost)})")
    return lines


def check_foreign(options: InferOptions, out: pathlib.Path) -> None:
    """Raises InputError where files of these names are in a folder that no inference has written to."""
    settings = out / "settings.json"
    try:
        ours = "engines" in read_json(settings, "expected the settings of an inference")
    except (InputError, TypeError):
        ours = False
    places = [settings, out / "submission.csv", *_places(options, out).values()]
    present = [str(place) for place in places if place.exists()]
    if present and not ours and not options.force:
        raise InputError(
            f"{', '.join(present)} already exists and is not from an inference; choose another --out or pass --force"
        )


def _places(options: InferOptions, out: pathlib.Path) -> dict[str, pathlib.Path]:
    if unknown := [name for name in options.format if name not in FORMATS]:
        raise InputError(f"--format: {', '.join(unknown)} is not a format; expected {', '.join(FORMATS)}")
    names = {name: _PLACES.get(name, name) for name in options.format}
    return {name: out / place for name, place in names.items() if place is not None}
