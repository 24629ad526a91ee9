"""Opening tomograms: OME-Zarr folders and MRC files."""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import warnings
from typing import Any

import mrcfile
import numpy as np

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.tomogram.normalization import scaled
from jaxcryo.tomogram.ome_zarr import is_zarr, open_ome_zarr, write_ome_zarr

__all__ = ["MRC_SUFFIXES", "Reading", "is_tomogram", "open_volume", "tomogram_name", "write_ome_zarr"]

MRC_SUFFIXES = (".mrc", ".rec", ".map")

_GIVE_SPACING = "give the true spacing with --voxel-spacing"
_MRC_HEADER_BYTES = 1024
_NSYMBT = slice(92, 96)
"""Where the header says how long the extended header is."""
_UNEQUAL = 1.01
"""Voxels are cubes but for rounding; header entries that differ by more were mostly written for another binning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How tomograms are to be read, whatever their files say."""

    spacing_angstrom: float | None = None
    """Of level 0."""
    level: int = 0
    invert: bool = False

    def open(self, path: str | pathlib.Path, name: str) -> Volume:
        """The tomogram, opened; raises as `open_volume` does."""
        volume = open_volume(path, name=name, spacing_angstrom=self.spacing_angstrom, level=self.level)
        return scaled(volume, gain=-1.0) if self.invert else volume


def is_tomogram(path: pathlib.Path) -> bool:
    """Whether the path looks like something that `open_volume` opens."""
    if path.is_dir():
        return path.suffix == ".zarr" or is_zarr(path)
    return path.is_file() and path.suffix.lower() in MRC_SUFFIXES


def tomogram_name(path: pathlib.Path) -> str:
    """The path's name without `.zarr`, `.ome.zarr`, `.mrc` and the like."""
    name = pathlib.Path(path).absolute().name
    for suffix in (".ome.zarr", ".zarr", *MRC_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def open_volume(
    path: str | pathlib.Path, *, name: str | None = None, spacing_angstrom: float | None = None, level: int = 0
) -> Volume:
    """A tomogram whose voxels stay on disk until they are read.

    The spacing comes from the file, in ångströms; `spacing_angstrom` replaces that of level 0, which is the full
    resolution (MRC has no other). Positions in another level are those of level 0. `name` is the file's own where it
    is None.

    Raises:
        InputError: nothing is there, it cannot be opened, lacks the level, is not three-dimensional, has no credible
            spacing, or parts of it are missing.
    """
    path = pathlib.Path(path)
    name = tomogram_name(path) if name is None else name
    if spacing_angstrom is not None and not (np.isfinite(spacing_angstrom) and spacing_angstrom > 0):
        raise InputError(f"{path}: a voxel spacing of {spacing_angstrom} Å was given; it must be above 0")
    if path.is_dir():
        return open_ome_zarr(path, name=name, spacing_angstrom=spacing_angstrom, level=level)
    if not path.exists():
        raise InputError(f"{path}: does not exist; expected an OME-Zarr folder or a file {', '.join(MRC_SUFFIXES)}")
    if path.suffix.lower() not in MRC_SUFFIXES:
        raise InputError(
            f"{path}: files called '{path.suffix or path.name}' are not read; expected an OME-Zarr folder or a file "
            f"{', '.join(MRC_SUFFIXES)}"
        )
    if level != 0:
        raise InputError(f"{path}: has no level {level}; an MRC file has only level 0")
    return _open_mrc(path, name=name, spacing_angstrom=spacing_angstrom)


def _open_mrc(path: pathlib.Path, *, name: str, spacing_angstrom: float | None) -> Volume:
    """A memory map of the file's data block.

    The map is made here and not by mrcfile, whose object would close it when it is collected, and which reads
    nothing of a file that is too short.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with path.open("rb") as stream:
                start = stream.read(_MRC_HEADER_BYTES)
            # Without the length of the extended header, for which mrcfile would take memory before it looks for it.
            plain = io.BytesIO(start[: _NSYMBT.start] + bytes(4) + start[_NSYMBT.stop :])
            with mrcfile.mrcinterpreter.MrcInterpreter(plain, permissive=True, header_only=True) as mrc:
                header = mrc.header
                extended = int(np.frombuffer(start[_NSYMBT], header.nsymbt.dtype)[0])
                shape = tuple(int(n) for n in mrcfile.utils.data_shape_from_header(header))
                dtype = mrcfile.utils.data_dtype_from_header(header)
                offset = _MRC_HEADER_BYTES + extended
                axis_order = (int(header.mapc), int(header.mapr), int(header.maps))
                spacing = _header_spacing_zyx(header)
    except (OSError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: cannot be opened as MRC ({error}); copy or convert it again") from error
    if caught:
        messages = "; ".join(sorted({str(w.message) for w in caught}))
        warnings.warn(f"{path}: read in spite of a faulty header: {messages}", stacklevel=3)
    if extended < 0:
        raise InputError(
            f"{path}: its extended header has {extended} bytes; expected 0 or more: copy or convert it again"
        )
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: its shape is {shape}; expected three sizes (z, y, x) above 0")
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: its voxels are {dtype}; expected real numbers: convert it to float32")
    if sorted(axis_order) == [1, 2, 3] and axis_order != (1, 2, 3):
        raise InputError(f"{path}: its axes are stored in the order {axis_order}; expected x, y, z: reorder it first")
    if spacing_angstrom is not None:
        spacing = (float(spacing_angstrom),) * 3
    elif not all(np.isfinite(s) and s > 0 for s in spacing):
        raise InputError(f"{path}: its header gives a voxel size of {spacing} Å; {_GIVE_SPACING}")
    elif max(spacing) > _UNEQUAL * min(spacing):
        sizes = " × ".join(f"{s:g}" for s in spacing[::-1])
        warnings.warn(
            f"{path}: its header gives voxels of {sizes} Å (x, y, z); if they are cubes, {_GIVE_SPACING}", stacklevel=3
        )
    elif all(abs(s - 1) < 1e-6 for s in spacing):
        raise InputError(f"{path}: its header gives a voxel size of 1 Å, which is a writer's default; {_GIVE_SPACING}")
    grid = VoxelGrid(shape_zyx=(shape[0], shape[1], shape[2]), spacing_zyx_angstrom=spacing)
    expected_bytes = offset + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < expected_bytes:
        raise InputError(
            f"{path}: has {path.stat().st_size} bytes; its header announces {expected_bytes}: it is truncated, "
            "copy it again"
        )
    return Volume(name=name, voxels=np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape), grid=grid)


def _header_spacing_zyx(header: Any) -> tuple[float, float, float]:
    """Cell size over sampling, z, y, x, to the precision of the header's float32; 0 where the sampling is."""
    lengths = (float(header.cella.z), float(header.cella.y), float(header.cella.x))
    samplings = (int(header.mz), int(header.my), int(header.mx))
    z, y, x = (float(f"{a / n:.7g}") if n else 0.0 for a, n in zip(lengths, samplings, strict=True))
    return z, y, x
