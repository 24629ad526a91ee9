"""Checks the chunks of a zarr array before they are unpacked, and finds those that are absent.

An absent chunk stands for the fill value: writers leave out chunks of zeros, but copying loses others. Blosc reads past
the end of a chunk that lacks only a few bytes, and returns wrong voxels without an error. A compressed chunk may unpack
to a thousand times the size that the array announces.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import pathlib
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import scipy.ndimage
from jaxtyping import Bool
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.stores.address import Location

_MAX_CHUNKS = 2**22
_MAX_CHUNK_BYTES = 2**31 - 1
_MAX_VOXELS = 2**40
_BLOSC_HEADER = 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 2**17
_PIECE = 2**20
TRUNCATED, LARGER = "truncated", "larger than their array says"
_READABLE = ("blosc", "zstd", "gzip", "zlib")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkRule:
    """What the chunks of an array have to be; `chunk_rule` says it."""

    counts: tuple[int, ...]
    """Number of files along each axis."""
    size: int
    """Size of an unpacked chunk in bytes."""
    codec: str | None
    """Their compression; None if there is none, or they are in shards, which are not looked into."""
    sharded: bool

    def fault(self, packed: int, opened: Callable[[], BinaryIO]) -> str | None:
        """What is wrong with a chunk of this many bytes; `opened` is used if its contents have to be checked."""
        if self.sharded:
            return None
        held = packed
        if self.codec is not None:
            with opened() as stream:
                held = _unpacked_size(stream, packed, self.codec, self.size)
        return None if held == self.size else TRUNCATED if held < self.size else LARGER


def chunk_rule(path: Location, array: Any) -> ChunkRule:
    """The rule of an array that lies below `path`.

    Raises:
        InputError: it does not hold numbers, is larger than any tomogram, or has a compression that is not read.
    """
    codec = _codec(path, array)
    return ChunkRule(
        counts=_counts(path, array),
        size=math.prod(array.chunks) * array.dtype.itemsize,
        codec=codec,
        sharded=array.shards is not None,
    )


def check_chunks(path: pathlib.Path, array: Any) -> str | None:
    """Checks the file of every chunk of an array below `path`, and the contents of compressed ones.

    Returns a sentence on absent chunks; None if all are there.

    Raises:
        InputError: as `chunk_rule` does; chunks are truncated, unreadable, or would unpack to a size other than the
            array's.
    """
    rule = chunk_rule(path, array)
    counts, faulty = rule.counts, defaultdict[str, list[pathlib.Path]](list)
    absent = np.zeros(counts, np.bool_)
    for place in itertools.product(*map(range, counts)):
        file = path / array.path / array.metadata.encode_chunk_key(place)
        try:
            if not file.is_file():
                absent[place] = True
            elif (fault := rule.fault(file.stat().st_size, functools.partial(file.open, "rb"))) is not None:
                faulty[fault].append(file)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}); make it readable") from error
    for what in (TRUNCATED, LARGER):
        if faulty[what]:
            raise InputError(
                f"{path}: {len(faulty[what])} chunks are {what}, the first is {faulty[what][0].relative_to(path)}: "
                "copy the tomogram again"
            )
    if absent.all():
        folder = path / array.path
        other = next((p for p in folder.rglob("*") if p.is_file() and p.name[:1].isdigit()), None)
        if other is not None:
            first = array.metadata.encode_chunk_key((0,) * len(counts))
            raise InputError(
                f"{path}: its chunks have other names ({other.relative_to(folder)}, …) than its metadata say ({first}, "
                f"…): correct dimension_separator (zarr 2) or chunk_key_encoding (zarr 3) in {array.path}"
            )
    return of_absent(absent, array)


def of_absent(absent: Bool[NDArray[np.bool_], "..."], array: Any) -> str | None:
    """A sentence on the absent chunks of an array; None if all are there."""
    if not absent.any():
        return None
    absent = absent.reshape(absent.shape[-3:])
    count = int(absent.sum())
    value = 0 if array.fill_value is None else array.fill_value
    sentence = f"{count} of its {absent.size} chunks are absent and read as the fill value ({value:g})"
    if absent.all():
        return f"{sentence}, so nothing is left of it: copy the tomogram again"
    bodies, bodies_there = scipy.ndimage.label(absent)
    rim = np.ones(absent.shape, np.bool_)
    rim[:, 1:-1, 1:-1] = False
    inner = sorted(set(range(1, bodies_there + 1)) - set(np.unique(bodies[rim]).tolist()))
    if not inner:
        return sentence
    z, y, x = np.argwhere(bodies == inner[0])[0].tolist()
    return (
        f"{sentence}, some of them in the middle of others (such as {z}, {y}, {x}), as if they had been lost: if "
        "it was copied or downloaded, do that again"
    )


def _codec(path: Location, array: Any) -> str | None:
    """The compression of the chunks; None if there is none, or they are in shards, which are not looked into."""
    dtype = array.dtype
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{path}: its voxels are {dtype}; expected real numbers: convert them to float32")
    if getattr(array, "filters", ()):
        filters = ", ".join(_name(f) for f in array.filters)
        raise InputError(f"{path}: its chunks use filters ({filters}), which are not read: write it without them")
    names = [_name(c) for c in array.compressors]
    if len(names) > 1 or any(n not in _READABLE for n in names):
        raise InputError(
            f"{path}: its chunks are compressed with {', '.join(names)}; expected one of {', '.join(_READABLE)}: "
            "write it anew"
        )
    return names[0] if names and array.shards is None else None


def _name(codec: Any) -> str:
    return str(getattr(codec, "codec_id", type(codec).__name__)).lower().removesuffix("codec")


def _counts(path: Location, array: Any) -> tuple[int, ...]:
    """The number of files along each axis."""
    files = array.shards or array.chunks
    counts = tuple(-(-n // c) for n, c in zip(array.shape, files, strict=True))
    if (
        math.prod(array.shape) > _MAX_VOXELS
        or math.prod(counts) > _MAX_CHUNKS
        or math.prod(array.chunks) * array.dtype.itemsize > _MAX_CHUNK_BYTES
    ):
        raise InputError(
            f"{path}: its shape is {array.shape} in chunks of {array.chunks}; expected a tomogram of at most "
            f"{_MAX_CHUNKS} chunks of less than 2 GiB: check its metadata, or write it in other chunks"
        )
    return counts


def _unpacked_size(stream: BinaryIO, packed: int, codec: str, expected: int) -> int:
    """How many bytes a chunk unpacks to; 0 where it is cut off. What is above `expected` need not be exact."""
    if codec == "blosc":
        header = stream.read(_BLOSC_HEADER)
        if len(header) < _BLOSC_HEADER or packed < int.from_bytes(header[12:16], "little"):
            return 0
        return int.from_bytes(header[4:8], "little")
    if codec == "zstd":
        return _zstd_size(stream.read(), expected)
    unpacker = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # zlib and gzip
    held = 0
    while held <= expected and not unpacker.eof:
        piece = unpacker.unconsumed_tail or stream.read(_PIECE)
        if not piece:
            return 0
        try:
            held += len(unpacker.decompress(piece, _PIECE))
        except zlib.error:
            return 0
    return held + (1 if unpacker.unused_data or stream.read(1) else 0)  # a second member unpacks to more


def _zstd_size(data: bytes, expected: int) -> int:
    """From the frame's header, or else from its blocks, none of which holds more than 128 KiB (RFC 8878)."""
    if len(data) < 6 or data[:4] != _ZSTD_MAGIC:
        return 0
    descriptor = data[4]
    single, has_checksum = bool(descriptor & 0x20), bool(descriptor & 0x04)
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    said = int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)
    at, last, most = at + width, False, 0
    while not last:
        if at + 3 > len(data):
            return 0
        block = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == 1 else size)
        most += size if kind < 2 else _ZSTD_BLOCK
    at += 4 if has_checksum else 0
    if at > len(data):
        return 0
    if at < len(data):
        return expected + 1  # a second frame unpacks to more
    if width:
        return said
    return expected if expected <= most <= 2 * expected + 2 * _ZSTD_BLOCK else most
