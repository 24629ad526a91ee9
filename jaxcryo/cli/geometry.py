"""The options that say what a format's coordinates refer to."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import Frames, TomogramFrame, detect, frames_of_tomograms, read_picks, read_tomograms
from jaxcryo.picks.geometry import Note

_IN_ANGSTROM = ("kaggle", "copick", "csv")


def say(sentence: str) -> None:
    """Prints a note beside a command's output."""
    print(f"note: {sentence}", file=sys.stderr)


def add_frame_options(p: argparse.ArgumentParser) -> None:
    """Adds --pixel-size, --unbinned-size and --tomograms."""
    p.add_argument("--pixel-size", type=float, metavar="ANGSTROM", help="for RELION: of the unbinned tilt series")
    p.add_argument(
        "--unbinned-size", type=int, nargs=3, metavar=("X", "Y", "Z"), help="for RELION 5: of the tomogram, in pixels"
    )
    p.add_argument("--tomograms", metavar="STAR", help="RELION's tomograms.star, which says both")


def frames_of(args: argparse.Namespace, runs: Sequence[Run], note: Note) -> Frames:
    """Frames of the options, of `tomograms.star` where it is given, and of the runs' tomograms for what these lack.

    Raises:
        InputError: an option makes no sense, or tomograms.star cannot be read.
    """
    size = args.unbinned_size
    default = TomogramFrame(
        pixel_size_angstrom=args.pixel_size,
        unbinned_size_xyz=None if size is None else (size[0], size[1], size[2]),
        voxel_spacing_xyz_angstrom=None if args.voxel_spacing is None else (args.voxel_spacing,) * 3,
    )
    if args.tomograms is None:
        return frames_of_tomograms(runs, default, note=note)
    given = read_tomograms(args.tomograms, default)
    measured = frames_of_tomograms(runs, dataclasses.replace(default, pixel_size_angstrom=None), note=note)
    by_run = dict(given.by_run)
    for run, own in measured.by_run.items():
        known = given.by_run.get(run, TomogramFrame())
        spacing = own.voxel_spacing_xyz_angstrom or known.voxel_spacing_xyz_angstrom
        by_run[run] = dataclasses.replace(known, voxel_spacing_xyz_angstrom=spacing)
    return Frames(default=default, by_run=by_run)


def given_picks(args: argparse.Namespace, runs: Sequence[Run], types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    """The picks of `--picks`, in any format, of each run; none where the option was not given.

    Raises:
        InputError: they cannot be read, or a run has none.
    """
    if args.picks is None:
        return {}
    source = detect(args.picks)
    frames = frames_of(args, [] if source.name in _IN_ANGSTROM else runs, say)
    found = read_picks(args.picks, types, frames, format_=source, note=say)
    missing = [r.name for r in runs if r.name not in found]
    if missing:
        raise InputError(
            f"{args.picks}: has no picks of {', '.join(missing)}; it has of {', '.join(found) or 'no run'}: name the "
            "runs as the tomograms are called"
        )
    return found
