"""What the coordinates of a format refer to and picks do not carry: pixel sizes and the sizes of tomograms.

All formats meet in copick's frame, in which picks are kept: ångströms x, y, z from the volume's corner, a voxel's
index counted from 0 times its spacing (copick, docs/geometry.md, "Voxel Coordinates").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.tomogram.volumes import open_volume

Note = Callable[[str], object]
"""Is told, in a sentence, what a user should know of a conversion."""

Triple = tuple[float, float, float]


def ignore(sentence: str) -> None:
    """The note that tells nobody."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TomogramFrame:
    """The scales and sizes of one tomogram, x, y, z; None where not known."""

    pixel_size_angstrom: float | None = None
    """Of the tilt series without binning: RELION's rlnTomoTiltSeriesPixelSize."""
    unbinned_size_xyz: tuple[int, int, int] | None = None
    """Of the tomogram in those pixels: RELION's rlnTomoSizeX/Y/Z."""
    voxel_spacing_xyz_angstrom: Triple | None = None
    """Of the tomogram as it was picked in."""

    def __post_init__(self) -> None:
        spacing = self.voxel_spacing_xyz_angstrom or ()
        for what, values in (("pixel size", (self.pixel_size_angstrom,)), ("voxel spacing", spacing)):
            for value in values:
                if value is not None and not (math.isfinite(value) and 1e-3 <= value <= 1e4):
                    raise InputError(f"the {what} is {value} Å; expected a number from 0.001 to 10000")
        if self.unbinned_size_xyz is not None and not all(1 <= n <= 10**6 for n in self.unbinned_size_xyz):
            raise InputError(
                f"the unbinned size is {self.unbinned_size_xyz}; expected x, y, z from 1 to 1000000 pixels"
            )

    def pixel_size(self, run: str) -> float:
        """Raises InputError where it is not known."""
        if self.pixel_size_angstrom is None:
            raise InputError(
                f"{run}: the pixel size of the unbinned tilt series is not known; give --pixel-size ANGSTROM, or "
                "--tomograms tomograms.star"
            )
        return self.pixel_size_angstrom

    def center_xyz_angstrom(self, run: str) -> Float[NDArray[np.float64], "3"]:
        """Where RELION 5 puts its origin: half the unbinned size. Raises InputError where that is not known.

        `TomogramSet::loadTomogram` sets the centre to (w0 / 2.0, …) and `getParticleCoordDecenteredPixel` adds it to
        give pixels counted from 0 (3dem/relion 5.0.1, src/jaz/tomography/tomogram_set.cpp and particle_set.cpp).
        copick and ArtiaX read the same. RELION's own picker subtracts size / 2 - 1
        (get_particle_poses/particles.py), so that its picks arrive one unbinned pixel further.
        """
        pixel_size = self.pixel_size(run)
        if self.unbinned_size_xyz is None:
            raise InputError(
                f"{run}: the size of the unbinned tomogram is not known; give --unbinned-size X Y Z (rlnTomoSizeX, Y, "
                "Z), or --tomograms tomograms.star, or --data DIR with the tomograms"
            )
        return np.asarray(self.unbinned_size_xyz, np.float64) / 2 * pixel_size

    def voxel_spacing(self, run: str) -> Float[NDArray[np.float64], "3"]:
        """x, y, z. Raises InputError where it is not known."""
        if self.voxel_spacing_xyz_angstrom is None:
            raise InputError(
                f"{run}: the voxel spacing of the tomogram is not known; give --voxel-spacing ANGSTROM, or --data DIR "
                "with the tomograms"
            )
        return np.asarray(self.voxel_spacing_xyz_angstrom, np.float64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frames:
    """The frame of each run; `default` for those that are not named."""

    default: TomogramFrame = TomogramFrame()
    by_run: Mapping[str, TomogramFrame] = dataclasses.field(default_factory=dict)

    def of(self, run: str) -> TomogramFrame:
        """What was said for all runs goes before what is known of this one."""
        own = self.by_run.get(run)
        if own is None:
            return self.default
        said = {f.name: getattr(self.default, f.name) for f in dataclasses.fields(own)}
        return dataclasses.replace(own, **{name: value for name, value in said.items() if value is not None})


def frames_of_tomograms(runs: Sequence[Run], default: TomogramFrame, *, note: Note = ignore) -> Frames:
    """Frames with the spacings that the tomograms' files give, and sizes derived where a pixel size is known.

    The unbinned size is the tomogram's extent over the pixel size, to the nearest pixel; a note says so. A tomogram
    that cannot be opened is left out, with a note.
    """
    by_run = {}
    sizes: set[tuple[int, int, int]] = set()
    for run in runs:
        said = default.voxel_spacing_xyz_angstrom
        try:
            grid = open_volume(run.volume_path, name=run.name, spacing_angstrom=said[0] if said else None).grid
        except InputError as error:
            note(str(error))
            continue
        z, y, x = grid.spacing_zyx_angstrom
        size = default.unbinned_size_xyz
        if size is None and default.pixel_size_angstrom is not None:
            extent = np.multiply(grid.shape_zyx, grid.spacing_zyx_angstrom)[::-1]
            size_x, size_y, size_z = np.rint(extent / default.pixel_size_angstrom).astype(int).tolist()
            size = (size_x, size_y, size_z)
            sizes.add(size)
        by_run[run.name] = TomogramFrame(unbinned_size_xyz=size, voxel_spacing_xyz_angstrom=(x, y, z))
    if sizes:
        listed = ", ".join("×".join(map(str, s)) for s in sorted(sizes))
        note(
            f"the unbinned size was taken from the tomograms as {listed} pixels (x, y, z); give --unbinned-size or "
            "--tomograms if tomograms.star says otherwise"
        )
    return Frames(default=default, by_run=by_run)
