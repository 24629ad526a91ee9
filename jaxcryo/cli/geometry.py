"""What the coordinates of picks in files refer to."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jaxcryo.cli.options import GeometryOptions
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import Geometries, TomogramGeometry, detect, known_geometries, read_picks
from jaxcryo.picks.geometry import Note
from jaxcryo.picks.run_names import listed


def say(sentence: str) -> None:
    """Prints a note beside a command's output."""
    print(f"note: {sentence}", file=sys.stderr)


def geometries_of(
    options: GeometryOptions, spacing_angstrom: float | None, runs: Sequence[Run], note: Note
) -> Geometries:
    """The geometry from options, then from `tomograms.star` if given, then from the runs' tomograms.

    Raises:
        InputError: an option makes no sense, or tomograms.star cannot be read.
    """
    default = TomogramGeometry(
        pixel_size_angstrom=options.pixel_size,
        unbinned_size_xyz=options.unbinned_size,
        voxel_spacing_xyz_angstrom=None if spacing_angstrom is None else (spacing_angstrom,) * 3,
    )
    return known_geometries(default, tomograms=options.tomograms, runs=runs, note=note)


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
    geometries = geometries_of(geometry, spacing_angstrom, [] if source.in_angstrom else runs, say)
    names = [r.name for r in runs]
    found = read_picks(path, types, geometries, format_=source, runs=names, note=say)
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{path}: has no picks of {listed(missing)}; it has picks of {listed(list(found))}: runs must be named "
            "like their tomograms"
        )
    return found
