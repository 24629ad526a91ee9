"""OME-Zarr: opening one level of a multiscale image."""

from __future__ import annotations

import dataclasses
import math
import operator
import pathlib
import reprlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import zarr

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.stores.address import Address, Location
from jaxcryo.stores.cache import Cache
from jaxcryo.tomogram.chunks import check_chunks
from jaxcryo.tomogram.remote import RemoteStore, RemoteVoxels, Seen
from jaxcryo.tomogram.spacing import GIVE_SPACING, check_spacing

_UNIT_ANGSTROM = {None: 1.0, "angstrom": 1.0, "nanometer": 10.0, "micrometer": 1e4}
_METADATA_FILES = (".zattrs", ".zgroup", "zarr.json")
_MOST_IMAGES = 1000


def is_zarr(path: pathlib.Path) -> bool:
    """Whether the folder is a zarr group or array of either format."""
    return any((path / name).is_file() for name in (*_METADATA_FILES, ".zarray"))


def open_ome_zarr(
    path: Location,
    *,
    name: str,
    spacing_angstrom: float | None = None,
    level: int = 0,
    cache: Cache | None = None,
) -> Volume:
    """One level of an OME-Zarr image of version 0.4 or 0.5, lazily.

    The spacing is the level's `scale` times the multiscale's own, in the axes' unit (ångström if none is given).
    `spacing_angstrom` replaces that of level 0, and those of the other levels in proportion. Positions in a level are
    counted from the corner of level 0, by the levels' `translation`; without one, from the level's own corner. Leading
    axes of size 1 (time, channel) are dropped. Every chunk is looked for; absent ones are read as the fill value, with
    a note. If a server does not list its folders, the note comes when they are read.

    Raises:
        InputError: no usable metadata, no such level, no spacing, not three axes, truncated chunks, or no answer.
    """
    store = RemoteStore(path, cache) if isinstance(path, Address) else None
    group, multiscale = _multiscale(path, store)
    datasets = _datasets(multiscale)
    if not 0 <= level < len(datasets):
        raise InputError(f"{path}: has no level {level}; its levels are: {_named(datasets)}")
    array = _level(path, group, datasets, level)
    leading = array.ndim - 3
    grid = _grid(path, multiscale, datasets[level], array.shape, spacing_angstrom)
    if level > 0:
        whole = _level(path, group, datasets, 0).shape
        grid = _from_corner_of_level_0(path, multiscale, datasets, level, grid, whole, spacing_angstrom)
    told = [] if spacing_angstrom is not None else check_spacing(path, "its metadata", _whole_spacing(path, multiscale))
    absent = check_chunks(path, array) if isinstance(path, pathlib.Path) else None
    voxels = _DropLeading(array=array, count=leading) if leading else array
    if store is not None:
        absent, voxels = store.settle(array), RemoteVoxels(voxels, array, store)
    for sentence in [*told, *([absent] if absent else [])]:
        warnings.warn(f"{path}: {sentence}", stacklevel=3)
    return Volume(name=name, voxels=voxels, grid=grid)


def level_shape(path: pathlib.Path, level: int) -> tuple[int, ...]:
    """The shape of a level by its metadata alone.

    Raises:
        InputError: no usable metadata, or no such level.
    """
    group, multiscale = _multiscale(path)
    datasets = _datasets(multiscale)
    if not 0 <= level < len(datasets):
        raise InputError(f"{path}: has no level {level}; its levels are: {_named(datasets)}")
    return tuple(_level(path, group, datasets, level).shape)


def seen_at(address: Address) -> Seen:
    """A fingerprint that tells whether an OME-Zarr at an address is still the same.

    Raises:
        InputError: it cannot be reached or opened.
    """
    store = RemoteStore(address)
    if store.listing is not None:
        return store.seen()
    group, multiscale = _multiscale(address, store)
    datasets = _datasets(multiscale)
    if not datasets:
        raise InputError(f"{address}: lists no level; expected at least one")
    return store.seen(_level(address, group, datasets, 0))


def _datasets(multiscale: dict[str, Any]) -> list[Any]:
    datasets = multiscale.get("datasets")
    return datasets if isinstance(datasets, list) else []


def _named(datasets: list[Any]) -> str:
    return ", ".join(f"{i} ({_place(d)[:40]})" for i, d in enumerate(datasets[:20])) or "none"


def _level(path: Location, group: Any, datasets: list[Any], level: int) -> Any:
    """The array of a level, with its axes checked."""
    try:
        array = group[_place(datasets[level])]
        shape = tuple(int(n) for n in array.shape)
        chunks = (array.chunks, array.shards or array.chunks)
        if not all(len(c) == len(shape) and min(c, default=0) >= 1 for c in chunks):
            raise ValueError(f"chunks of {array.chunks} in a shape of {shape}")
    except InputError:
        raise
    except Exception as error:  # zarr and what it unpacks raise several kinds for metadata that make no sense
        raise InputError(
            f"{path}: level {level} is listed but cannot be opened ({type(error).__name__}: {str(error)[:200]}); the "
            f"levels listed are: {_named(datasets)}: copy the folder again, or choose another level"
        ) from error
    if len(shape) < 3 or any(n != 1 for n in shape[:-3]) or min(shape) < 1:
        raise InputError(
            f"{path}: level {level} has the shape {shape}; expected z, y, x with sizes above 0 (further axes in front "
            f"of them of size 1); the levels are: {_named(datasets)}"
        )
    return array


def _place(dataset: Any) -> str:
    """The path of a level's array inside the folder; a path that leads out of it is refused."""
    place = dataset.get("path") if isinstance(dataset, dict) else None
    parts = pathlib.PurePosixPath(place).parts if isinstance(place, str) else ()
    return "/".join(parts) if parts and not {"..", "/"} & set(parts) and "\\" not in str(place) else "?"


def _grid(
    path: Location,
    multiscale: dict[str, Any],
    dataset: dict[str, Any],
    shape: Sequence[int],
    spacing_angstrom: float | None,
) -> VoxelGrid:
    if spacing_angstrom is None:
        spacing_zyx = _spacing_zyx_angstrom(path, multiscale, dataset, len(shape))
    else:
        spacing_zyx = (float(spacing_angstrom),) * 3
    z, y, x = (int(n) for n in shape[-3:])
    return VoxelGrid(shape_zyx=(z, y, x), spacing_zyx_angstrom=spacing_zyx)


def _from_corner_of_level_0(
    path: Location,
    multiscale: dict[str, Any],
    datasets: list[dict[str, Any]],
    level: int,
    grid: VoxelGrid,
    shape: Sequence[int],
    spacing_angstrom: float | None,
) -> VoxelGrid:
    """The grid of a level, from the corner of level 0."""
    rank = len(shape)
    own, whole = (_vector(datasets[i], "scale", rank) for i in (level, 0))
    if own is not None and whole is not None and min(*own, *whole) > 0:
        z, y, x = (a / b for a, b in zip(own, whole, strict=True))
    else:
        z, y, x = (max(round(a / b), 1) for a, b in zip(shape[-3:], grid.shape_zyx, strict=True))
    first = _grid(path, multiscale, datasets[0], shape, spacing_angstrom)
    if spacing_angstrom is not None:
        grid = dataclasses.replace(
            grid, spacing_zyx_angstrom=(spacing_angstrom * z, spacing_angstrom * y, spacing_angstrom * x)
        )
    shift, zero = (_vector(datasets[i], "translation", rank) for i in (level, 0))
    if shift is None or whole is None or min(whole) <= 0:
        return grid
    # The center of the first voxel: in voxels of level 0 from that level's first one, and in ångströms.
    between = [(a - b) / s for a, b, s in zip(shift, zero or (0.0,) * 3, whole, strict=True)]
    sizes = zip(between, first.spacing_zyx_angstrom, grid.spacing_zyx_angstrom, strict=True)
    z, y, x = (round((n + 0.5) * s - 0.5 * own_size, 6) for n, s, own_size in sizes)
    return dataclasses.replace(grid, origin_xyz_angstrom=(x, y, z))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DropLeading:
    """An array seen without its leading axes of size 1; indexing reads."""

    array: Any
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[self.count :])

    @property
    def chunks(self) -> tuple[int, ...]:
        return tuple(self.array.chunks[self.count :])

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    def __getitem__(self, key: Any) -> Any:
        return self.array[(0,) * self.count + (key if isinstance(key, tuple) else (key,))]


def _multiscale(path: Location, store: RemoteStore | None = None) -> tuple[Any, dict[str, Any]]:
    """The group and its first multiscale image."""
    expected = "expected an OME-Zarr folder of version 0.4 or 0.5 with 'multiscales' in its attributes"
    try:
        group = zarr.open_group(path if store is None else store, mode="r")
        attributes = dict(group.attrs)
    except InputError:
        raise
    except Exception as error:  # zarr raises several kinds for absent, unreadable or wrong metadata
        if store is not None and store.refusal is not None:
            raise store.refusal from error
        raise InputError(
            f"{path}: cannot be opened ({type(error).__name__}: {str(error)[:300]}); {expected}"
        ) from error
    multiscales = _listed(attributes)
    if multiscales is not None:
        return group, multiscales[0]
    # bioformats2raw writes an image as a group below, which is read if there is just one.
    within = [key for key in sorted(group.group_keys())[:_MOST_IMAGES] if _listed(dict(group[key].attrs)) is not None]
    if len(within) == 1:
        image = _listed(dict(group[within[0]].attrs))
        assert image is not None
        return group[within[0]], image[0]
    if within:
        raise InputError(
            f"{path}: holds {len(within)} images ({', '.join(within[:20])}); pass one of them, such as "
            f"{path / within[0]}"
        )
    keys = ", ".join(sorted(str(k) for k in group)[:20]) or "none"
    raise InputError(f"{path}: {expected}; it lists none (arrays and groups inside: {keys}): convert it first")


def _listed(attributes: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The multiscale images that a group's attributes list."""
    ome = attributes.get("ome")
    found = attributes.get("multiscales") or (ome.get("multiscales") if isinstance(ome, dict) else None)
    return found if isinstance(found, list) and found and isinstance(found[0], dict) else None


def _spacing_zyx_angstrom(
    path: Location, multiscale: dict[str, Any], dataset: dict[str, Any], rank: int
) -> tuple[float, float, float]:
    listed = multiscale.get("axes")
    axes = [a if isinstance(a, dict) else {"name": a} for a in listed] if isinstance(listed, list) else []
    names = [a.get("name") for a in axes]
    if axes and names[-3:] != ["z", "y", "x"]:
        raise InputError(
            f"{path}: its axes are {reprlib.repr(names)}; expected the last three to be z, y, x: transpose it first"
        )
    units = [a.get("unit") for a in axes[-3:]] or [None] * 3
    own, whole = _vector(dataset, "scale", rank), _vector(multiscale, "scale", rank)
    if own is None and whole is None:
        raise InputError(f"{path}: its metadata give no scale; {GIVE_SPACING}")
    if any(not isinstance(u, str | None) or u not in _UNIT_ANGSTROM for u in units):
        raise InputError(
            f"{path}: its axes are in {reprlib.repr(units)}; expected one of "
            f"{', '.join(u for u in _UNIT_ANGSTROM if u)}: {GIVE_SPACING}"
        )
    factors = [a * b for a, b in zip(own or (1.0,) * 3, whole or (1.0,) * 3, strict=True)]
    if factors == [1.0] * 3 and units == [None] * 3:
        raise InputError(f"{path}: its scale is 1 without a unit, which is a writer's default; {GIVE_SPACING}")
    z, y, x = (f * _UNIT_ANGSTROM[u] for f, u in zip(factors, units, strict=True))
    if not all(math.isfinite(s) and s > 0 for s in (z, y, x)):
        raise InputError(f"{path}: its scale is {factors!r}; expected values above 0: {GIVE_SPACING}")
    return z, y, x


def _whole_spacing(path: Location, multiscale: dict[str, Any]) -> tuple[float, float, float]:
    """The spacing of level 0, if it has one: in other levels voxels need not be cubes."""
    first = multiscale["datasets"][0]
    entry = first if isinstance(first, dict) else {}
    rank = next((n for n in (3, 4, 5) if _vector(entry, "scale", n) or _vector(multiscale, "scale", n)), 3)
    return _spacing_zyx_angstrom(path, multiscale, entry, rank)


def _vector(entry: dict[str, Any], kind: Literal["scale", "translation"], rank: int) -> tuple[float, ...] | None:
    """The last three numbers of an entry's transforms of a kind, multiplied or added; None without one."""
    transforms = entry.get("coordinateTransformations")
    found: tuple[float, ...] | None = None
    for transform in transforms if isinstance(transforms, list) else ():
        values = transform.get(kind) if isinstance(transform, dict) else None
        if not isinstance(values, list) or len(values) != rank or not all(_is_number(v) for v in values):
            continue
        last = tuple(float(v) for v in values[-3:])
        combine = operator.mul if kind == "scale" else operator.add
        found = last if found is None else tuple(map(combine, found, last))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
