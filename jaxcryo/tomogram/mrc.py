"""MRC files as the field's programs write them, which is not always as the standard says.

The voxels stay in the file until they are read. If a header contradicts itself or the file, it is read correctly where
that can be decided, with a note; otherwise it is refused, and the message names the options that settle it.
"""

from __future__ import annotations

import bz2
import contextlib
import dataclasses
import functools
import gzip
import math
import mmap
import pathlib
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.tomogram.mrc_block import HEADER_BYTES, DataBlock
from jaxcryo.tomogram.spacing import check_spacing

Bytes = Literal["auto", "signed", "unsigned"]

SUFFIXES = (".mrc", ".rec", ".map", ".st", ".ali")
PACKED: dict[str, Callable[[pathlib.Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open}

_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_REFUSED = {3: "complex integers", 4: "complex numbers (a transform)", 16: "colors (RGB)"}
_NIBBLES = 101
_IMOD_STAMP = 1146047817
_FIELDS = [
    ("size", "3i4"), ("mode", "i4"), ("start", "3i4"), ("sampling", "3i4"), ("cell", "3f4"), ("angles", "3f4"),
    ("map", "3i4"), ("least", "f4"), ("most", "f4"), ("mean", "f4"), ("group", "i4"), ("extended", "i4"),
    ("extra", "V8"), ("exttype", "S4"), ("version", "i4"), ("more", "V40"), ("imod_stamp", "i4"), ("imod_flags", "i4"),
    ("rest", "V48"), ("word", "S4"), ("stamp", "V4"), ("end", "V808"),
]  # fmt: skip
_LARGEST_SIDE = 2**20
_PIECE = 2**20
_LARGEST_UNPACKED = 2**37
_SAY_BYTES = "say what they are with --bytes signed or --bytes unsigned"


def open_mrc(
    path: pathlib.Path, *, name: str, spacing_angstrom: float | None = None, bytes_are: Bytes = "auto"
) -> Volume:
    """A tomogram in an MRC file. One compressed by gzip or bzip2 is unpacked to a temporary file when it is first read.

    `bytes_are` settles mode 0, which is signed by the standard and unsigned by IMOD and many before it; `auto` goes by
    IMOD's flag, the header's extremes and the voxels, in this order.

    Raises:
        InputError: it is not an MRC file of real numbers, is incomplete, or has no credible spacing.
    """
    told: list[str] = []
    with _reported(path), _opener(path)(path) as stream:
        header = _header(path, stream, told)
    if path.suffix.lower() in PACKED:
        voxels: Any = _Packed(path=path, header=header, bytes_are=bytes_are)
    else:
        with _reported(path), path.open("rb") as stream:
            voxels = _voxels(path, stream, header, bytes_are, told)
    z, y, x = (int(n) for n in voxels.shape)
    if spacing_angstrom is None:
        spacing = _spacing_zyx(header)
        told += check_spacing(path, "its header", spacing, shape_zyx=(z, y, x), lengths_zyx=_lengths_zyx(header))
    else:
        spacing = (float(spacing_angstrom),) * 3
    _say(path, told)
    return Volume(name=name, voxels=voxels, grid=VoxelGrid(shape_zyx=(z, y, x), spacing_zyx_angstrom=spacing))


def _opener(path: pathlib.Path) -> Callable[[pathlib.Path], Any]:
    return PACKED.get(path.suffix.lower(), lambda plain: plain.open("rb"))


@contextlib.contextmanager
def _reported(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: cannot be opened as MRC ({error}); it is damaged, or not what its name says: copy or convert it "
            "again"
        ) from error


def _say(path: pathlib.Path, told: list[str]) -> None:
    for sentence in told:
        warnings.warn(f"{path}: {sentence}", stacklevel=4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Packed:
    """The voxels of a compressed file, unpacked when one is read."""

    path: pathlib.Path
    header: Any
    bytes_are: Bytes

    @property
    def shape(self) -> tuple[int, ...]:
        sections, rows, columns = (int(n) for n in self.header["size"][::-1])
        own = (sections, rows, columns)
        return tuple(own[axis] for axis in _array_axes(self.header))

    @property
    def dtype(self) -> np.dtype[np.float32]:
        return np.dtype(np.float32)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[Any]:
        return np.asarray(self._voxels[key])

    @functools.cached_property
    def _voxels(self) -> Any:
        told: list[str] = []
        with _reported(self.path), tempfile.TemporaryFile(prefix="jaxcryo-") as copy:
            with _opener(self.path)(self.path) as packed:
                while piece := packed.read(_PIECE):
                    copy.write(piece)
                    if copy.tell() > _LARGEST_UNPACKED:
                        raise InputError(f"{self.path}: unpacks to more than {_LARGEST_UNPACKED >> 30} GiB: unpack it")
            voxels = _voxels(self.path, copy, self.header, self.bytes_are, told)
        _say(self.path, told)
        return voxels


def _header(path: pathlib.Path, stream: Any, told: list[str]) -> Any:
    """The header, in the byte order in which it makes sense."""
    start = stream.read(HEADER_BYTES)
    if len(start) < HEADER_BYTES:
        raise InputError(
            f"{path}: cannot be opened as MRC ({len(start)} bytes are less than a header's {HEADER_BYTES}); "
            "copy or convert it again"
        )
    orders: tuple[Literal["<", ">"], ...] = ("<", ">") if start[212:213] != b"\x11" else (">", "<")
    for order in orders:
        header = np.frombuffer(start, np.dtype(_FIELDS).newbyteorder(order))[0]
        sizes = [int(n) for n in header["size"]]
        known = int(header["mode"]) in {*_MODES, *_REFUSED, _NIBBLES}
        if known and all(1 <= n <= _LARGEST_SIDE for n in sizes):
            stamps = (b"\x44\x44", b"\x44\x41") if order == "<" else (b"\x11\x11",)
            if start[208:212] != b"MAP " or start[212:214] not in stamps:
                told.append(
                    "read in spite of a faulty header, without the word MAP or a machine stamp: taken as "
                    f"{'little' if order == '<' else 'big'}-endian, mode {int(header['mode'])}"
                )
            return header
    header = np.frombuffer(start, np.dtype(_FIELDS).newbyteorder(orders[0]))[0]
    sizes = [int(n) for n in header["size"]]
    if all(0 <= n <= _LARGEST_SIDE for n in sizes) and int(header["mode"]) in _MODES:
        raise InputError(f"{path}: its sizes are {sizes[::-1]}; expected three sizes (z, y, x) above 0")
    raise InputError(
        f"{path}: cannot be opened as MRC (sizes {sizes}, mode {int(header['mode'])}); expected modes "
        f"{', '.join(map(str, (*_MODES, _NIBBLES)))}: copy or convert it again"
    )


def _voxels(path: pathlib.Path, stream: Any, header: Any, bytes_are: Bytes, told: list[str]) -> Any:
    """The data block as an array of z, y, x that lies in the file."""
    mode = int(header["mode"])
    columns, rows, sections = (int(n) for n in header["size"])
    if mode in _REFUSED:
        raise InputError(f"{path}: its voxels are {_REFUSED[mode]} (mode {mode}); expected real numbers: convert it")
    per_volume = int(header["sampling"][2])
    if int(header["group"]) >= 401 and 0 < per_volume < sections:
        raise InputError(f"{path}: is a stack of {sections // per_volume} volumes; expected one: split it first")
    if sections == 1 and min(columns, rows) > 1:
        raise InputError(f"{path}: has one section of {columns} × {rows}; expected three sizes (z, y, x) above 1")
    row_bytes = (columns + 1) // 2 if mode == _NIBBLES else columns * np.dtype(_MODES[mode]).itemsize
    needed = row_bytes * rows * sections
    size = stream.seek(0, 2)
    kind = np.dtype("u1") if mode == _NIBBLES else np.dtype(_MODES[mode]).newbyteorder(header.dtype["mode"].str[0])
    block = DataBlock(path=path, stream=stream, kind=kind, size=size, needed=needed, header=header)
    offset = block.offset(told)
    if mode == 0:
        kind = np.dtype(_byte_kind(path, header, block.sample(offset), bytes_are, told))
    shape = (sections, rows, row_bytes) if mode == _NIBBLES else (sections, rows, columns)
    # Mapped through the open file: its name may be gone, and a temporary copy has none.
    mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    voxels: Any = np.frombuffer(mapped, kind, math.prod(shape), offset).reshape(shape)
    if mode == _NIBBLES:
        voxels = Nibbles(packed=voxels, columns=columns)
    return voxels.transpose(_array_axes(header))


def _array_axes(header: Any) -> list[int]:
    """Which of sections, rows and columns lie along z, y and x."""
    columns_rows_sections = [int(n) for n in header["map"]]
    if sorted(columns_rows_sections) != [1, 2, 3]:  # zeros of an old writer
        return [0, 1, 2]
    return [2 - columns_rows_sections.index(axis) for axis in (3, 2, 1)]


def _byte_kind(
    path: pathlib.Path, header: Any, sample: NDArray[np.int8], bytes_are: Bytes, told: list[str]
) -> Literal["i1", "u1"]:
    if bytes_are != "auto":
        return "i1" if bytes_are == "signed" else "u1"
    signed, unsigned = (float(sample.view(kind).std()) for kind in ("i1", "u1"))
    by_voxels = "u1" if 1.3 * unsigned < signed else "i1" if 1.3 * signed < unsigned else None
    least, most = float(header["least"]), float(header["most"])
    by_extremes = "i1" if -128 <= least < 0 < most <= 127 else "u1" if least >= 0 and 127 < most <= 255 else None
    if sample.min() >= 0 and by_extremes is None:
        return "i1"  # with or without a sign it is the same
    names = {"i1": "signed", "u1": "unsigned"}
    if int(header["imod_stamp"]) == _IMOD_STAMP:
        kind: Literal["i1", "u1"] = "i1" if int(header["imod_flags"]) & 1 else "u1"
        if by_voxels not in (None, kind) and by_extremes not in (None, kind):
            told.append(
                f"its bytes are {names[kind]} by IMOD's flag, but look {names[by_voxels]}: read as "
                f"{names[kind]}; {_SAY_BYTES}"
            )
        return kind
    if by_extremes is not None and by_voxels in (None, by_extremes):
        return by_extremes  # type: ignore[return-value]
    if by_voxels is not None:
        told.append(f"its bytes look {names[by_voxels]} and are read so; if that is wrong, {_SAY_BYTES}")
        return by_voxels  # type: ignore[return-value]
    told.append(f"its bytes are read as signed, as in the standard; if that is wrong, {_SAY_BYTES}")
    return "i1"


def _lengths_zyx(header: Any) -> tuple[float, float, float]:
    x, y, z = (float(n) for n in header["cell"])
    return z, y, x


def _spacing_zyx(header: Any) -> tuple[float, float, float]:
    """Cell size over sampling, to the precision of the header's float32; 0 if the sampling is 0."""
    samplings = [int(n) for n in header["sampling"]][::-1]
    z, y, x = (float(f"{a / n:.7g}") if n else 0.0 for a, n in zip(_lengths_zyx(header), samplings, strict=True))
    return z, y, x


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nibbles:
    """Voxels of four bits, two in a byte, the lower half first; a row begins with a byte."""

    packed: NDArray[np.uint8]
    columns: int
    order: tuple[int, int, int] = (0, 1, 2)

    @property
    def shape(self) -> tuple[int, ...]:
        own = (*self.packed.shape[:2], self.columns)
        return tuple(own[axis] for axis in self.order)

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        return np.dtype(np.uint8)

    def transpose(self, order: Sequence[int]) -> Nibbles:
        first, second, third = (self.order[axis] for axis in order)
        return dataclasses.replace(self, order=(first, second, third))

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        own = [key[self.order.index(axis)] for axis in range(3)]
        part = self.packed[own[0], own[1]]
        wide = np.stack([part & 15, part >> 4], axis=-1).reshape(*part.shape[:2], -1)[:, :, : self.columns]
        return wide[:, :, own[2]].transpose(self.order)
