"""Opening tomograms: OME-Zarr folders and MRC files."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

import numpy as np

from jaxcryo.domain import Volume
from jaxcryo.errors import InputError
from jaxcryo.stores.address import Address, Location, location
from jaxcryo.stores.cache import Cache
from jaxcryo.tomogram.axes import advice, turned
from jaxcryo.tomogram.mrc import PACKED, SUFFIXES, Bytes, open_mrc
from jaxcryo.tomogram.normalization import scaled
from jaxcryo.tomogram.ome_zarr import is_zarr, open_ome_zarr
from jaxcryo.tomogram.ome_zarr_writer import write_ome_zarr

__all__ = ["MRC_SUFFIXES", "Reading", "is_tomogram", "open_volume", "tomogram_name", "write_ome_zarr"]

MRC_SUFFIXES = SUFFIXES + tuple(suffix + packed for suffix in SUFFIXES for packed in PACKED)
TILT_SERIES_SUFFIXES = tuple(s for s in MRC_SUFFIXES if s.startswith((".st", ".ali")))
"""Names of files that hold a tilt series if a tomogram is beside them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How tomograms are to be read, whatever their files say."""

    spacing_angstrom: float | None = None
    """Of level 0."""
    level: int = 0
    invert: bool = False
    axes: str | None = None
    """Which of the file's axes are x, y and z, such as xzy; None takes them as they are, with a note if z is not the
    shortest."""
    bytes_are: Bytes = "auto"
    """Whether bytes in MRC files are signed or unsigned."""
    cache: Cache | None = None
    """Where chunks from servers are cached."""

    def open(self, path: str | Location, name: str) -> Volume:
        """The tomogram, opened; raises as `open_volume` does."""
        volume = open_volume(
            path,
            name=name,
            spacing_angstrom=self.spacing_angstrom,
            level=self.level,
            bytes_are=self.bytes_are,
            cache=self.cache,
        )
        if self.axes is not None:
            volume = turned(volume, self.axes)
        elif (sentence := advice(volume)) is not None:
            warnings.warn(sentence, stacklevel=2)
        return scaled(volume, gain=-1.0) if self.invert else volume


def is_tomogram(path: pathlib.Path) -> bool:
    """Whether the path looks like something that `open_volume` opens."""
    if path.is_dir():
        return path.suffix == ".zarr" or is_zarr(path)
    return path.is_file() and path.name.lower().endswith(MRC_SUFFIXES)


def tomogram_name(path: Location) -> str:
    """The path's name without `.zarr`, `.ome.zarr`, `.mrc`, `.mrc.gz` and the like."""
    name = path.name if isinstance(path, Address) else path.absolute().name
    for suffix in (".ome.zarr", ".zarr", *sorted(MRC_SUFFIXES, key=len, reverse=True)):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_volume(
    path: str | Location,
    *,
    name: str | None = None,
    spacing_angstrom: float | None = None,
    level: int = 0,
    bytes_are: Bytes = "auto",
    cache: Cache | None = None,
) -> Volume:
    """A tomogram whose voxels stay where they are, on disk or on a server (OME-Zarr only), until they are read.

    The spacing comes from the file, in ångströms; `spacing_angstrom` replaces that of level 0, which is the full
    resolution (MRC has no other). Positions in another level are those of level 0. If `name` is None, it is the file's
    own. `bytes_are` says whether an MRC file's bytes are signed; `auto` finds out. `cache` keeps what comes from a
    server.

    Raises:
        InputError: nothing is there, it cannot be opened, lacks the level, is not three-dimensional, has no credible
            spacing, or parts of it are missing.
    """
    path = location(path)
    name = tomogram_name(path) if name is None else name
    expected = f"expected an OME-Zarr folder or a file {', '.join(SUFFIXES)}, also with {' or '.join(PACKED)}"
    if spacing_angstrom is not None and not (np.isfinite(spacing_angstrom) and spacing_angstrom > 0):
        raise InputError(f"{path}: a voxel spacing of {spacing_angstrom} Å was given; it must be above 0")
    if isinstance(path, Address):
        if path.name.lower().endswith(MRC_SUFFIXES):
            raise InputError(
                f"{path}: only OME-Zarr can be read from servers, since its parts can be requested: download this file"
            )
        return open_ome_zarr(path, name=name, spacing_angstrom=spacing_angstrom, level=level, cache=cache)
    if path.is_dir():
        return open_ome_zarr(path, name=name, spacing_angstrom=spacing_angstrom, level=level)
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path}: is a link to {path.readlink()}, which does not exist: restore it, or remove the link"
        )
    if not path.exists():
        raise InputError(f"{path}: does not exist; {expected}")
    if not path.name.lower().endswith(MRC_SUFFIXES):
        raise InputError(f"{path}: files called '{path.suffix or path.name}' are not read; {expected}")
    if level != 0:
        raise InputError(f"{path}: has no level {level}; an MRC file has only level 0")
    return open_mrc(path, name=name, spacing_angstrom=spacing_angstrom, bytes_are=bytes_are)
