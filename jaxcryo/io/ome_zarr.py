"""OME-Zarr: opening one level of a multiscale image, and writing a tomogram as one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.io.atomic import atomic_path

_UNIT_ANGSTROM = {None: 1.0, "angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4}
_METADATA_FILES = (".zattrs", ".zgroup", "zarr.json")
_CHUNK_SIZE = 64
_BLOSC_HEADER_BYTES = 16
_GIVE_SPACING = "give the true spacing with --voxel-spacing"


def is_zarr(path: pathlib.Path) -> bool:
    """Whether the folder is a zarr group or array of either format."""
    return any((path / name).is_file() for name in (*_METADATA_FILES, ".zarray"))


def open_ome_zarr(path: pathlib.Path, *, name: str, spacing_angstrom: float | None = None, level: int = 0) -> Volume:
    """One level of an OME-Zarr image of version 0.4 or 0.5, lazily.

    The spacing is the level's `scale` times the multiscale's own, in the axes' unit (ångström where none is given).
    `spacing_angstrom` replaces it; it is the spacing of the level that is opened. Leading axes of size 1 (time,
    channel) are dropped. Every chunk is looked for, since zarr reads a missing one as zeros.

    Raises:
        InputError: no usable metadata, no such level, no spacing, not three axes, missing or truncated chunks.
    """
    group, multiscale = _multiscale(path)
    datasets = multiscale.get("datasets") or []
    available = ", ".join(f"{i} ({d.get('path')})" for i, d in enumerate(datasets)) or "none"
    if not 0 <= level < len(datasets):
        raise InputError(f"{path}: has no level {level}; its levels are: {available}")
    try:
        array = group[datasets[level]["path"]]
        shape = tuple(int(n) for n in array.shape)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: level {level} is listed but cannot be opened ({error}); the levels listed are: {available}: "
            "copy the folder again, or choose another level"
        ) from error
    leading = len(shape) - 3
    if leading < 0 or any(n != 1 for n in shape[:leading]) or min(shape) < 1:
        raise InputError(
            f"{path}: level {level} has the shape {shape}; expected z, y, x with sizes above 0 (further axes in front "
            f"of them of size 1); the levels are: {available}"
        )
    if spacing_angstrom is None:
        spacing_zyx = _spacing_zyx_angstrom(path, multiscale, datasets[level], len(shape))
    else:
        spacing_zyx = (float(spacing_angstrom),) * 3
    grid = VoxelGrid(shape_zyx=(shape[-3], shape[-2], shape[-1]), spacing_zyx_angstrom=spacing_zyx)
    _check_chunks(path, array)
    return Volume(name=name, voxels=_DropLeading(array=array, count=leading) if leading else array, grid=grid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DropLeading:
    """An array seen without its leading axes of size 1; indexing reads."""

    array: Any
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[self.count :])

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    def __getitem__(self, key: Any) -> Any:
        return self.array[(0,) * self.count + (key if isinstance(key, tuple) else (key,))]


def _multiscale(path: pathlib.Path) -> tuple[Any, dict[str, Any]]:
    """The group and its first multiscale image."""
    expected = "expected an OME-Zarr folder of version 0.4 or 0.5 with 'multiscales' in its attributes"
    try:
        group = zarr.open_group(path, mode="r")
        attributes = dict(group.attrs)
    except Exception as error:  # zarr raises several kinds for absent, unreadable or wrong metadata
        raise InputError(f"{path}: cannot be opened ({type(error).__name__}: {error}); {expected}") from error
    ome = attributes.get("ome")
    multiscales = attributes.get("multiscales") or (ome.get("multiscales") if isinstance(ome, dict) else None)
    if not isinstance(multiscales, list) or not multiscales or not isinstance(multiscales[0], dict):
        keys = ", ".join(sorted(str(k) for k in group)) or "none"
        raise InputError(f"{path}: {expected}; it lists none (arrays and groups inside: {keys}): convert it first")
    return group, multiscales[0]


def _spacing_zyx_angstrom(
    path: pathlib.Path, multiscale: dict[str, Any], dataset: dict[str, Any], rank: int
) -> tuple[float, float, float]:
    axes = [a if isinstance(a, dict) else {"name": a} for a in multiscale.get("axes") or []]
    names = [a.get("name") for a in axes]
    if axes and names[-3:] != ["z", "y", "x"]:
        raise InputError(f"{path}: its axes are {names}; expected the last three to be z, y, x: transpose it first")
    units = [a.get("unit") for a in axes[-3:]] or [None] * 3
    own, whole = _scale(dataset, rank), _scale(multiscale, rank)
    if own is None and whole is None:
        raise InputError(f"{path}: its metadata give no scale; {_GIVE_SPACING}")
    if any(u not in _UNIT_ANGSTROM for u in units):
        raise InputError(
            f"{path}: its axes are in {units}; expected one of "
            f"{', '.join(u for u in _UNIT_ANGSTROM if u)}: {_GIVE_SPACING}"
        )
    factors = [a * b for a, b in zip(own or (1.0,) * 3, whole or (1.0,) * 3, strict=True)]
    if factors == [1.0] * 3 and units == [None] * 3:
        raise InputError(f"{path}: its scale is 1 without a unit, which is a writer's default; {_GIVE_SPACING}")
    z, y, x = (f * _UNIT_ANGSTROM[u] for f, u in zip(factors, units, strict=True))
    if not all(math.isfinite(s) and s > 0 for s in (z, y, x)):
        raise InputError(f"{path}: its scale is {factors}; expected values above 0: {_GIVE_SPACING}")
    return z, y, x


def _scale(entry: dict[str, Any], rank: int) -> tuple[float, ...] | None:
    """The last three factors of an entry's scale transforms, multiplied; None without one."""
    product: tuple[float, ...] | None = None
    for transform in entry.get("coordinateTransformations") or []:
        scale = transform.get("scale") if isinstance(transform, dict) else None
        if isinstance(scale, list) and len(scale) == rank and all(isinstance(s, int | float) for s in scale):
            product = tuple(float(s) * p for s, p in zip(scale[-3:], product or (1.0,) * 3, strict=True))
    return product


def _check_chunks(path: pathlib.Path, array: Any) -> None:
    """Looks for every chunk's file; of blosc's, also whether it is as long as its header says.

    Blosc reads past the end of a chunk that lacks only a few bytes, and gives wrong voxels without an error.
    """
    is_blosc = array.shards is None and any("blosc" in type(c).__name__.lower() for c in array.compressors[-1:])
    missing, short = [], []
    for key in _chunk_keys(array):
        file = path / array.path / key
        try:
            with file.open("rb") as stream:
                header = stream.read(_BLOSC_HEADER_BYTES) if is_blosc else b""
            if is_blosc and file.stat().st_size < int.from_bytes(header[12:16], "little") + (not header):
                short.append(file)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(file)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}); make it readable") from error
    for faulty, what in ((missing, "missing"), (short, "truncated")):
        if faulty:
            raise InputError(
                f"{path}: {len(faulty)} chunks are {what}, the first is {faulty[0].relative_to(path)}; expected all of "
                "them: copy the tomogram again (if chunks of zeros were left out on purpose, write it with "
                "write_empty_chunks=True)"
            )


def _chunk_keys(array: Any) -> Iterator[str]:
    files = array.shards or array.chunks
    counts = [range(math.ceil(n / c)) for n, c in zip(array.shape, files, strict=True)]
    for coordinates in itertools.product(*counts):
        yield array.metadata.encode_chunk_key(coordinates)


def write_ome_zarr(
    path: str | pathlib.Path,
    voxels: Float[NDArray[np.float32], "z y x"],
    spacing_zyx_angstrom: Sequence[float],
    *,
    levels: int = 3,
) -> None:
    """Writes a tomogram as OME-Zarr 0.4 (zarr format 2, float32, arrays `0`, `1`, …), atomically.

    Each level averages blocks of two voxels along every axis; an odd size loses its last slice on the way, an axis
    of size 1 stays. A level's translation puts its first voxel at the middle of the block that it averages.

    Raises:
        InputError: the voxels do not have three axes, or the folder cannot be written.
    """
    if voxels.ndim != 3 or voxels.size == 0:
        raise InputError(f"{path}: cannot write voxels of shape {voxels.shape}; expected three sizes above 0 (z, y, x)")
    compressor = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
    datasets: list[Any] = []
    scale = np.asarray(spacing_zyx_angstrom, np.float64)
    translation = np.zeros(3)
    with atomic_path(path) as fresh:
        group = zarr.open_group(fresh, mode="w", zarr_format=2)
        level_voxels = np.asarray(voxels, np.float32)
        for level in range(levels):
            array = group.create_array(
                str(level),
                shape=level_voxels.shape,
                chunks=tuple(min(_CHUNK_SIZE, n) for n in level_voxels.shape),
                dtype="float32",
                compressors=compressor,
                chunk_key_encoding={"name": "v2", "separator": "/"},
                fill_value=0.0,
                config={"write_empty_chunks": True},
            )
            array[:] = level_voxels
            transforms = [
                {"type": "scale", "scale": scale.tolist()},
                {"type": "translation", "translation": translation.tolist()},
            ]
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
            if level + 1 < levels:
                level_voxels, factor = _halve(level_voxels)
                translation = translation + (factor - 1) / 2 * scale
                scale = scale * factor
        group.attrs["multiscales"] = [
            {
                "version": "0.4",
                "name": "/",
                "axes": [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"],
                "datasets": datasets,
            }
        ]


def _halve(
    voxels: Float[NDArray[np.float32], "z y x"],
) -> tuple[Float[NDArray[np.float32], "z2 y2 x2"], Float[NDArray[np.float64], " 3"]]:
    """The means of blocks of two, and the factor of each axis (1 where there is a single slice)."""
    factors = [2 if n > 1 else 1 for n in voxels.shape]
    for axis, factor in enumerate(factors):
        if factor == 2:
            pairs = voxels.shape[axis] // 2 * 2
            even, odd = (voxels[(slice(None),) * axis + (slice(i, pairs, 2),)] for i in (0, 1))
            voxels = (even + odd) * np.float32(0.5)
    return voxels, np.asarray(factors, np.float64)
