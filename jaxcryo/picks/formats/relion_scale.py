"""How the coordinates of a STAR file's particles become ångströms.

The file, `tomograms.star`, the tomograms and options may all give a pixel size. Which of them counts is decided here,
and a note says where they disagree.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.errors import InputError
from jaxcryo.picks.formats import star
from jaxcryo.picks.geometry import Geometries, Note, TomogramGeometry, differ

PIXEL_SIZE = "rlnTomoTiltSeriesPixelSize"
_IMAGE_PIXEL_SIZE, _BINNING = "rlnImagePixelSize", "rlnTomoSubtomogramBinning"
_ORIGIN = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_COORDINATES = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
_ORIGIN_PIXELS = ("rlnOriginX", "rlnOriginY", "rlnOriginZ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How a file's coordinates become ångströms: one source for a tomogram's pixel size and its size in pixels.

    An option goes before tomograms.star, and that before the file's own optics groups; notes say where they disagree.
    """

    file: pathlib.Path
    blocks: star.Blocks
    table: Any
    runs: Sequence[str]
    geometries: Geometries
    note: Note

    def own(self, name: str) -> Float[NDArray[np.float64], " n"] | None:
        """The pixel size that the file gives for each particle."""
        return star.by_optics_group(self.blocks, self.table, name, self.file)

    def geometry(self, run: str, own_pixel_size: float | None) -> TomogramGeometry:
        known = self.geometries.of(run)
        if known.pixel_size_angstrom is None and own_pixel_size is not None:
            known = dataclasses.replace(known, pixel_size_angstrom=own_pixel_size)
        extent = known.extent_xyz_angstrom()
        if known.unbinned_size_xyz is None and known.pixel_size_angstrom is not None and extent is not None:
            x, y, z = np.maximum(np.rint(extent / known.pixel_size_angstrom), 1).astype(int).tolist()
            known = dataclasses.replace(known, unbinned_size_xyz=(x, y, z))
        return known

    def by_run(self) -> dict[str, TomogramGeometry]:
        """The geometry of each run. Says where the file's optics groups disagree with what goes before them."""
        own = self._pixel_size()
        sizes = {} if own is None else dict(zip(self.runs, own.tolist(), strict=True))
        found = {run: self.geometry(run, sizes.get(run)) for run in dict.fromkeys(self.runs)}
        other = {
            (sizes[run], size)
            for run, g in found.items()
            if run in sizes and (size := g.pixel_size_angstrom) is not None and differ(size, sizes[run])
        }
        for file_says, used in sorted(other)[:3]:
            self.note(
                f"{self.file}: its optics groups have pixels of {file_says:g} Å ({PIXEL_SIZE}), and {used:g} Å was "
                f"given and used; pass --pixel-size {file_says:g} if the file is right"
            )
        return found

    def _pixel_size(self) -> Float[NDArray[np.float64], " n"] | None:
        """The pixel size of the unbinned tilt series, or of the tomogram whose voxels the coordinates count.

        pytom puts the tomogram's voxel size into the particles' rlnDetectorPixelSize, without a magnification, and
        into their rlnTomoTiltSeriesPixelSize for RELION 5, where it is not the unit of the center.
        """
        if PIXEL_SIZE in self.table.columns and not any(n in self.table.columns for n in _COORDINATES):
            return None
        own = self.own(PIXEL_SIZE)
        if (
            own is None
            and "rlnDetectorPixelSize" in self.table.columns
            and "rlnMagnification" not in self.table.columns
        ):
            own = self.own("rlnDetectorPixelSize")
        return own

    def from_center(self, given: Float[NDArray[np.float64], "n 3"]) -> Float[NDArray[np.float64], "n 3"]:
        found = self.by_run()
        derived = sorted(
            {g.unbinned_size_xyz for run, g in found.items() if self._lacks_size(run) and g.unbinned_size_xyz}
        )
        if derived:
            shown = ", ".join("×".join(map(str, size)) for size in derived)
            self.note(f"{self.file}: the unbinned size was taken from the tomograms as {shown} pixels (x, y, z)")
        centers = {run: g.center_xyz_angstrom(run) for run, g in found.items()}
        return given + np.asarray([centers[run] for run in self.runs], np.float64).reshape(-1, 3)

    def _lacks_size(self, run: str) -> bool:
        return self.geometries.of(run).unbinned_size_xyz is None

    def from_corner(self, given: Float[NDArray[np.float64], "n 3"]) -> Float[NDArray[np.float64], "n 3"]:
        if len(given) and self._is_normalized(given):
            return self._of_extent(given)
        return given * self.pixel_sizes()[:, None]

    def pixel_sizes(self) -> Float[NDArray[np.float64], " n"]:
        """The size of the coordinates' pixels, for each particle."""
        image = self._of_warp()
        if image is not None:
            return image
        sizes = {run: g.pixel_size(run) for run, g in self.by_run().items()}
        return np.asarray([sizes[run] for run in self.runs], np.float64)

    def _of_warp(self) -> Float[NDArray[np.float64], " n"] | None:
        """The pixel size of particles that Warp exported, which is the unit of their coordinates.

        Up to July 2026 it put the unbinned pixel size into the optics groups beside them (warpem/warp, 7ad2dcc).
        """
        if self.geometries.default.pixel_size_angstrom is not None:
            return None
        if not any(run.endswith(".tomostar") for run in self._written_names()):
            return None
        image, unbinned, binning = self.own(_IMAGE_PIXEL_SIZE), self.own(PIXEL_SIZE), self.own(_BINNING)
        if image is None:
            if binning is not None and np.any(binning != 1):
                raise InputError(
                    f"{self.file}: is of Warp ({self._written_names()[0]}), with a binning of {binning[0]:g} and no "
                    f"{_IMAGE_PIXEL_SIZE}: which pixels its coordinates count is not clear; pass --pixel-size ANGSTROM"
                )
            return None
        if unbinned is not None and len(image) and differ(float(image[0]), float(unbinned[0])):
            self.note(
                f"{self.file}: is of Warp ({self._written_names()[0]}), and its coordinates were read as pixels of "
                f"{image[0]:g} Å ({_IMAGE_PIXEL_SIZE}), not of {unbinned[0]:g} Å ({PIXEL_SIZE}); pass --pixel-size if "
                "that is wrong"
            )
        return image

    def _written_names(self) -> list[str]:
        name = star.TOMOGRAM if star.TOMOGRAM in self.table.columns else star.MICROGRAPH
        return [str(n) for n in self.table[name].tolist()]

    def _is_normalized(self, given: Float[NDArray[np.float64], "n 3"]) -> bool:
        """Whether coordinates are fractions of the tomogram, as Warp's template matching writes them."""
        return bool(
            star.TOMOGRAM not in self.table.columns and np.all((given >= 0) & (given <= 1)) and np.any(given % 1)
        )

    def _of_extent(self, given: Float[NDArray[np.float64], "n 3"]) -> Float[NDArray[np.float64], "n 3"]:
        extents = {}
        for run in dict.fromkeys(self.runs):
            extent = self.geometry(run, None).extent_xyz_angstrom()
            if extent is None:
                raise InputError(
                    f"{self.file}: its coordinates are fractions of the tomogram, from 0 to 1, as Warp's template "
                    f"matching writes them, and the size of {run} is not known; pass --data DIR with the tomograms"
                )
            extents[run] = extent
        self.note(f"{self.file}: its coordinates were read as fractions of the tomogram (Warp's template matching)")
        return given * np.asarray([extents[run] for run in self.runs], np.float64)


def shift_xyz_angstrom(scale: Scale, subtomogram: Rotation | None) -> Float[NDArray[np.float64], "n 3"]:
    """The shifts from refinement, to be subtracted from the particles' coordinates.

    The shift is given along the axes of the subtomogram (3dem/relion 5.0.1, get_particle_poses/particles.py,
    `rlnOrigin_to_rlnCoordinate_row`), in RELION 3 in pixels of the particles' images.
    """
    table, file = scale.table, scale.file
    shift = star.triple(table, _ORIGIN, file, scale.note)
    if shift is None:
        pixels = star.triple(table, _ORIGIN_PIXELS, file, scale.note)
        if pixels is None or not np.any(pixels):
            return np.zeros((len(table), 3))
        shift = pixels * _image_pixel_sizes(scale)[:, None]
    return shift if subtomogram is None or not len(table) else subtomogram.apply(shift)


def _image_pixel_sizes(scale: Scale) -> Float[NDArray[np.float64], " n"]:
    """The pixel size of RELION 3's shifts: from the optics groups, from detector and magnification, or else that of the
    coordinates.
    """
    for name in (_IMAGE_PIXEL_SIZE, "rlnPixelSize"):
        sizes = scale.own(name)
        if sizes is not None:
            return sizes
    detector, magnification = scale.own("rlnDetectorPixelSize"), scale.own("rlnMagnification")
    if detector is not None and magnification is not None and np.all(magnification > 0):
        sizes = detector * 1e4 / magnification
        scale.note(f"{scale.file}: shifts ({_ORIGIN_PIXELS[0]}, …) were read as pixels of {sizes[:1].sum():g} Å")
        return sizes
    sizes = scale.pixel_sizes()
    scale.note(
        f"{scale.file}: shifts ({_ORIGIN_PIXELS[0]}, …) were read as pixels of {sizes[:1].sum():g} Å, as the "
        "coordinates"
    )
    return sizes
