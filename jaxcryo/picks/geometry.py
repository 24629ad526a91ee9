"""What a format's coordinates refer to, and picks do not carry: the pixel sizes and sizes of tomograms.

All formats meet in copick's coordinates, in which picks are kept: ångströms x, y, z from the volume's corner, a
voxel's index counted from 0 times its spacing (copick, docs/geometry.md, "Voxel Coordinates").
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picks.run_names import listed, same_run
from jaxcryo.tomogram.volumes import open_volume

Note = Callable[[str], object]
"""Called with a sentence for the user about a conversion."""

Triple = tuple[float, float, float]

_CORNER = 0.4
"""Picks that reach no farther than this share of x and y are said to fill a corner."""
_FEWEST = 10
_SAME = 0.01
"""Sizes that differ by less mean the same."""


def ignore(sentence: str) -> None:
    """A note that goes nowhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TomogramGeometry:
    """The scales and sizes of one tomogram, x, y, z; None where not known."""

    pixel_size_angstrom: float | None = None
    """Pixel size of the unbinned tilt series: RELION's rlnTomoTiltSeriesPixelSize."""
    unbinned_size_xyz: tuple[int, int, int] | None = None
    """Size of the tomogram in those pixels: RELION's rlnTomoSizeX/Y/Z."""
    voxel_spacing_xyz_angstrom: Triple | None = None
    """Voxel spacing of the tomogram that was picked."""
    shape_xyz: tuple[int, int, int] | None = None
    """Size of that tomogram in voxels."""
    others: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    """The tomograms with a known geometry, if this one is not among them."""

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
                f"{run}: the pixel size of the unbinned tilt series is not known{self._beside(run)}; pass --pixel-size "
                "ANGSTROM, or --tomograms tomograms.star"
            )
        return self.pixel_size_angstrom

    def center_xyz_angstrom(self, run: str) -> Float[NDArray[np.float64], "3"]:
        """Where RELION 5 puts its origin: half the unbinned size. Raises InputError where that is not known.

        `TomogramSet::loadTomogram` sets the center to (w0 / 2.0, …) and `getParticleCoordDecenteredPixel` adds it to
        give pixels counted from 0 (3dem/relion 5.0.1, src/jaz/tomography/tomogram_set.cpp and particle_set.cpp).
        copick and ArtiaX read the same. RELION's own picker subtracts size / 2 - 1
        (get_particle_poses/particles.py), so that its picks arrive one unbinned pixel further.
        """
        pixel_size = self.pixel_size(run)
        if self.unbinned_size_xyz is None:
            raise InputError(
                f"{run}: the size of the unbinned tomogram is not known{self._beside(run)}; pass --unbinned-size X Y Z "
                "(rlnTomoSizeX, Y, Z), or --tomograms tomograms.star, or --data DIR with the tomograms"
            )
        return np.asarray(self.unbinned_size_xyz, np.float64) / 2 * pixel_size

    def voxel_spacing(self, run: str) -> Float[NDArray[np.float64], "3"]:
        """x, y, z. Raises InputError where it is not known."""
        if self.voxel_spacing_xyz_angstrom is None:
            raise InputError(
                f"{run}: the voxel spacing of the tomogram is not known{self._beside(run)}; pass --voxel-spacing "
                "ANGSTROM, or --data DIR with the tomograms"
            )
        return np.asarray(self.voxel_spacing_xyz_angstrom, np.float64)

    def _beside(self, run: str) -> str:
        return f": the tomograms are {listed(self.others)}, and {run} is not among them" if self.others else ""

    def extent_xyz_angstrom(self) -> Float[NDArray[np.float64], "3"] | None:
        """The tomogram's edges, of its voxels or of its unbinned pixels; None where neither is known."""
        if self.shape_xyz is not None and self.voxel_spacing_xyz_angstrom is not None:
            return np.multiply(self.shape_xyz, self.voxel_spacing_xyz_angstrom).astype(np.float64)
        if self.unbinned_size_xyz is not None and self.pixel_size_angstrom is not None:
            return np.asarray(self.unbinned_size_xyz, np.float64) * self.pixel_size_angstrom
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometries:
    """The geometry of each run; `default` was given for all of them, and goes before what is known of one."""

    default: TomogramGeometry = TomogramGeometry()
    by_run: Mapping[str, TomogramGeometry] = dataclasses.field(default_factory=dict)

    def of(self, run: str) -> TomogramGeometry:
        """The geometry of a run, also under another program's variant of its name.

        A pixel size given for all does not change a tomogram's extent: its size in pixels belongs to the pixel size of
        the same source.
        """
        name = self.known_as(run)
        if name is None:
            return dataclasses.replace(self.default, others=tuple(self.by_run))
        own = self.by_run[name]
        size, pixel, said = own.unbinned_size_xyz, own.pixel_size_angstrom, self.default.pixel_size_angstrom
        if size is not None and pixel is not None and said is not None and differ(pixel, said):
            x, y, z = (max(1, round(n * pixel / said)) for n in size)
            own = dataclasses.replace(own, unbinned_size_xyz=(x, y, z))
        values = {f.name: getattr(self.default, f.name) for f in dataclasses.fields(own) if f.compare}
        return dataclasses.replace(own, **{name: value for name, value in values.items() if value is not None})

    def known_as(self, run: str) -> str | None:
        """The name under which a run's geometry is known; None if it is not."""
        return same_run(run, self.by_run)

    def note_places(self, picks: Picks, note: Note) -> None:
        """Notes picks that lie outside their tomogram or fill only a corner of it, as wrong pixel sizes cause."""
        extent = self.of(picks.run).extent_xyz_angstrom()
        if extent is not None:
            note_places(picks, extent, note)


def note_places(picks: Picks, extent_xyz_angstrom: Float[NDArray[np.float64], "3"], note: Note) -> None:
    """Notes picks that lie outside a tomogram of this size, or fill only a corner of it."""
    xyz, extent = picks.xyz_angstrom, extent_xyz_angstrom
    size = " × ".join(f"{v:.0f}" for v in extent)
    reach = max((t.radius_angstrom for t in picks.types), default=0.0)
    outside = int(np.any((xyz < -reach) | (xyz > extent + reach), axis=1).sum())
    if outside:
        note(
            f"{picks.run}: {outside} of {len(picks)} picks are outside the tomogram, which is {size} Å (x, y, z); a "
            "wrong pixel size or voxel spacing is the usual cause"
        )
    elif len(picks) >= _FEWEST and np.all(np.max(xyz[:, :2], axis=0) < _CORNER * extent[:2]):
        to = " × ".join(f"{v:.0f}" for v in np.max(xyz, axis=0))
        note(
            f"{picks.run}: all {len(picks)} picks are in one corner, within {to} Å of a tomogram of {size} Å (x, y, "
            "z); a pixel size that is too small is the usual cause"
        )


def differ(a: float, b: float) -> bool:
    """Whether two sizes are not the same within rounding."""
    return abs(a - b) > _SAME * max(abs(a), abs(b))


def geometries_of_tomograms(runs: Sequence[Run], default: TomogramGeometry, *, note: Note = ignore) -> Geometries:
    """Geometries with the spacings in the tomograms' files, and with derived sizes where a pixel size is known.

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
        depth, height, width = grid.shape_zyx
        size = default.unbinned_size_xyz
        if size is None and default.pixel_size_angstrom is not None:
            extent = np.multiply(grid.shape_zyx, grid.spacing_zyx_angstrom)[::-1]
            size_x, size_y, size_z = np.rint(extent / default.pixel_size_angstrom).astype(int).tolist()
            size = (size_x, size_y, size_z)
            sizes.add(size)
        by_run[run.name] = TomogramGeometry(
            unbinned_size_xyz=size, voxel_spacing_xyz_angstrom=(x, y, z), shape_xyz=(width, height, depth)
        )
    if sizes:
        shown = ", ".join("×".join(map(str, s)) for s in sorted(sizes))
        note(
            f"the unbinned size was taken from the tomograms as {shown} pixels (x, y, z); pass --unbinned-size or "
            "--tomograms if tomograms.star has another size"
        )
    return Geometries(default=default, by_run=by_run)
