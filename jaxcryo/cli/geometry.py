"""What the coordinates of picks in files refer to."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from jaxcryo.cli.options import GeometryOptions
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import Frames, TomogramFrame, detect, frames_of_tomograms, read_picks, read_tomograms
from jaxcryo.picks.geometry import Note

_IN_ANGSTROM = ("kaggle", "copick", "csv")


def say(sentence: str) -> None:
    """Prints a note beside a command's output."""
    print(f"note: {sentence}", file=sys.stderr)


def frames_of(options: GeometryOptions, spacing_angstrom: float | None, runs: Sequence[Run], note: Note) -> Frames:
    """Frames of the options, of `tomograms.star` where it is given, and of the runs' tomograms for what these lack.

    Raises:
        InputError: an option makes no sense, or tomograms.star cannot be read.
    """
    default = TomogramFrame(
        pixel_size_angstrom=options.pixel_size,
        unbinned_size_xyz=options.unbinned_size,
        voxel_spacing_xyz_angstrom=None if spacing_angstrom is None else (spacing_angstrom,) * 3,
    )
    if options.tomograms is None:
        return frames_of_tomograms(runs, default, note=note)
    given = read_tomograms(options.tomograms, default)
    measured = frames_of_tomograms(runs, dataclasses.replace(default, pixel_size_angstrom=None), note=note)
    by_run = dict(given.by_run)
    for run, own in measured.by_run.items():
        known = given.by_run.get(run, TomogramFrame())
        spacing = own.voxel_spacing_xyz_angstrom or known.voxel_spacing_xyz_angstrom
        by_run[run] = dataclasses.replace(known, voxel_spacing_xyz_angstrom=spacing)
    return Frames(default=default, by_run=by_run)


def read_given_picks(
    path: str,
    runs: Sequence[Run],
    types: tuple[ParticleType, ...],
    geometry: GeometryOptions,
    spacing_angstrom: float | None,
) -> dict[str, Picks]:
    """The picks of each run in a file or folder of any format.

    Raises:
        InputError: they cannot be read, or a run has none.
    """
    source = detect(path)
    frames = frames_of(geometry, spacing_angstrom, [] if source.name in _IN_ANGSTROM else runs, say)
    found = read_picks(path, types, frames, format_=source, note=say)
    missing = [r.name for r in runs if r.name not in found]
    if missing:
        raise InputError(
            f"{path}: has no picks of {', '.join(missing)}; it has picks of {', '.join(found) or 'no run'}: name the "
            "runs like the tomograms"
        )
    return found
