"""Picks in further formats beside the ones that inference always writes."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from jaxcryo.cli.geometry import geometries_of, say
from jaxcryo.cli.infer import InferOptions
from jaxcryo.domain import Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import Geometries, check_writable, format_of, losses, writable_formats, write_picks

_ALWAYS = ("kaggle", "copick")
"""Formats that inference always writes."""


def export_geometries(options: InferOptions, out: pathlib.Path, runs: Sequence[Run]) -> Geometries:
    """The geometry of the runs that the chosen formats need.

    Raises:
        InputError: it is unknown, or a format cannot hold a run's name.
    """
    places = export_places(options, out)
    if not places:
        return Geometries()
    geometries = geometries_of(options.geometry, options.input.voxel_spacing, runs, say)
    for name, place in places.items():
        check_writable(format_of(name), place, [r.name for r in runs], geometries)
    return geometries


def write_exports(
    options: InferOptions, out: pathlib.Path, found: Mapping[str, Picks], geometries: Geometries
) -> list[str]:
    """Writes the picks in the chosen formats, replacing earlier ones; returns a line for each."""
    lines = []
    for name, place in export_places(options, out).items():
        write_picks(found, place, format_of(name), geometries, force=True)
        lost = losses(found, format_of(name))
        lines.append(f"  {place}  ({format_of(name).title}{''.join(f'; not {phrase}' for phrase in lost)})")
    return lines


def export_places(options: InferOptions, out: pathlib.Path) -> dict[str, pathlib.Path]:
    """The file or folder of each chosen format that inference does not always write."""
    known = writable_formats()
    if unknown := [name for name in options.format if name not in known]:
        raise InputError(f"--format: {', '.join(unknown)} cannot be written; expected {', '.join(known)}")
    return {name: out / (known[name].place or name) for name in options.format if name not in _ALWAYS}
