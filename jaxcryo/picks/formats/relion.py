"""Particles for RELION: version 4 in unbinned pixels from the corner, version 5 in ångströms from the centre.

RELION 4's `rlnCoordinateX/Y/Z` count from 0: voxel i of a tomogram that RELION binned by b lies at b·i (3dem/relion
5.0.1, src/jaz/tomography/particle_set.cpp, `getPosition`, and programs/reconstruct_tomogram.cpp, whose origin is 0;
4.0.2 adds 1 to the one and starts the other at 1). RELION 5 still reads them where there is no
`rlnCenteredCoordinateX/Y/ZAngst`, whose origin is `TomogramFrame.center_xyz_angstrom`.
"""

from __future__ import annotations

import dataclasses
import pathlib

from jaxcryo.domain import Picks
from jaxcryo.picks.formats import star
from jaxcryo.picks.formats.base import PickFormat, PicksByRun, Row, Types, files_of, picks_of_rows
from jaxcryo.picks.geometry import Frames, Note

PIXELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
CENTERED = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")


def _read_pixels(path: pathlib.Path, types: Types, frames: Frames, note: Note) -> dict[str, Picks]:
    return _read(path, types, frames, note, centered=False)


def _read_centered(path: pathlib.Path, types: Types, frames: Frames, note: Note) -> dict[str, Picks]:
    return _read(path, types, frames, note, centered=True)


def _read(path: pathlib.Path, types: Types, frames: Frames, note: Note, *, centered: bool) -> dict[str, Picks]:
    rows: dict[str, list[Row]] = {}
    for file in files_of(path, ".star", types, note):
        blocks = star.read_blocks(file)
        names = CENTERED if centered else PIXELS
        table = star.particles_of(blocks, file, names)
        given, shift = star.columns(table, names, file), star.origin_xyz_angstrom(table, file)
        own = _with_pixel_size(frames, star.pixel_size_of(blocks, file))
        star.note_orientations(table, file, note)
        kinds, scores = star.type_indices(blocks, table, file, types), star.scores(table, file)
        for i, run in enumerate(star.tomogram_names(table, file)):
            frame = own.of(run)
            xyz = given[i] + frame.center_xyz_angstrom(run) if centered else given[i] * frame.pixel_size(run)
            x, y, z = (xyz - shift[i]).tolist()
            rows.setdefault(run, []).append((x, y, z, kinds[i], scores[i]))
    return {run: picks_of_rows(run, types, own) for run, own in rows.items()}


def _with_pixel_size(frames: Frames, pixel_size_angstrom: float | None) -> Frames:
    """Frames with the pixel size of the file where none was said."""
    if pixel_size_angstrom is None or frames.default.pixel_size_angstrom is not None:
        return frames
    return dataclasses.replace(
        frames, default=dataclasses.replace(frames.default, pixel_size_angstrom=pixel_size_angstrom)
    )


def _encode_pixels(picks: PicksByRun, path: pathlib.Path, frames: Frames) -> dict[pathlib.Path, str]:
    pixels = {run: own.xyz_angstrom / frames.of(run).pixel_size(run) for run, own in picks.items()}
    return star.encode_particles(picks, path, PIXELS, pixels)


def _encode_centered(picks: PicksByRun, path: pathlib.Path, frames: Frames) -> dict[pathlib.Path, str]:
    centered = {run: own.xyz_angstrom - frames.of(run).center_xyz_angstrom(run) for run, own in picks.items()}
    return star.encode_particles(picks, path, CENTERED, centered)


RELION4 = PickFormat(name="relion4", title="STAR of RELION 4", read=_read_pixels, encode=_encode_pixels)
RELION5 = PickFormat(name="relion5", title="STAR of RELION 5", read=_read_centered, encode=_encode_centered)
