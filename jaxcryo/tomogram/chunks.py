"""Whether the chunks of a zarr array hold what the array says, before they are unpacked, and which are absent.

An absent chunk means the fill value: writers leave out chunks of zeros, and copying loses others. Blosc reads past the
end of a chunk that lacks only a few bytes, and gives wrong voxels without an error. And a compressed chunk may
unpack to a thousand times the size that the array announces.
"""

from __future__ import annotations

import itertools
import math
import pathlib
import zlib
from typing import Any

import numpy as np
import scipy.ndimage
from jaxtyping import Bool
from numpy.typing import NDArray

from jaxcryo.errors import InputError

_MAX_CHUNKS = 2**22
_MAX_CHUNK_BYTES = 2**31 - 1
_MAX_VOXELS = 2**40
_BLOSC_HEADER = 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK = 2**17
_PIECE = 2**20
_READABLE = ("blosc", "zstd", "gzip", "zlib")


def check_chunks(path: pathlib.Path, array: Any) -> str | None:
    """Looks at every chunk's file of an array that lies below `path`; of compressed ones, also inside.

    Returns what to say of absent chunks; None where all are there.

    Raises:
        InputError: the array is not of numbers, larger than any tomogram, or packed in a way that is not read; chunks
            are truncated, unreadable, or would unpack to another size than the array says.
    """
    codec = _codec(path, array)
    size = math.prod(array.chunks) * array.dtype.itemsize
    short, swollen = [], []
    counts = _counts(path, array)
    absent = np.zeros(counts, np.bool_)
    for place in itertools.product(*map(range, counts)):
        file = path / array.path / array.metadata.encode_chunk_key(place)
        try:
            if not file.is_file():
                absent[place] = True
            elif codec is not None:
                held = _unpacked_size(file, codec, size)
                if held < size:
                    short.append(file)
                elif held > size:
                    swollen.append(file)
            elif array.shards is None and file.stat().st_size < size:
                short.append(file)
            elif not array.shards and file.stat().st_size > size:
                swollen.append(file)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror}); make it readable") from error
    for faulty, what in ((short, "truncated"), (swollen, "larger than their array says")):
        if faulty:
            raise InputError(
                f"{path}: {len(faulty)} chunks are {what}, the first is {faulty[0].relative_to(path)}: copy the "
                "tomogram again"
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
    return _of_absent(absent.reshape(counts[-3:]), array) if absent.any() else None


def _of_absent(absent: Bool[NDArray[np.bool_], "z y x"], array: Any) -> str:
    count = int(absent.sum())
    value = 0 if array.fill_value is None else array.fill_value
    sentence = f"{count} of its {absent.size} chunks are absent and read as the fill value ({value:g})"
    if absent.all():
        return f"{sentence}, which are all there should be: copy the tomogram again"
    bodies, bodies_there = scipy.ndimage.label(absent)
    rim = np.ones(absent.shape, np.bool_)
    rim[:, 1:-1, 1:-1] = False
    inner = sorted(set(range(1, bodies_there + 1)) - set(np.unique(bodies[rim]).tolist()))
    if not inner:
        return sentence
    z, y, x = np.argwhere(bodies == inner[0])[0].tolist()
    return (
        f"{sentence}, some of them in the middle of others (such as {z}, {y}, {x}), as if they had been lost: if it "
        "was copied or downloaded, do it again"
    )


def _codec(path: pathlib.Path, array: Any) -> str | None:
    """What packs the chunks' bytes; None where nothing does, or shards are not looked into."""
    dtype = array.dtype
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{path}: its voxels are {dtype}; expected real numbers: convert them to float32")
    if getattr(array, "filters", ()):
        filters = ", ".join(_name(f) for f in array.filters)
        raise InputError(f"{path}: its chunks went through filters ({filters}), which are not read: write it without")
    names = [_name(c) for c in array.compressors]
    if len(names) > 1 or any(n not in _READABLE for n in names):
        raise InputError(
            f"{path}: its chunks are packed by {', '.join(names)}; expected one of {', '.join(_READABLE)}: write it "
            "anew"
        )
    return names[0] if names and array.shards is None else None


def _name(codec: Any) -> str:
    return str(getattr(codec, "codec_id", type(codec).__name__)).lower().removesuffix("codec")


def _counts(path: pathlib.Path, array: Any) -> tuple[int, ...]:
    """Of files along each axis."""
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


def _unpacked_size(file: pathlib.Path, codec: str, expected: int) -> int:
    """How many bytes a chunk unpacks to; 0 where it is cut off. What is above `expected` need not be exact."""
    with file.open("rb") as stream:
        if codec == "blosc":
            header = stream.read(_BLOSC_HEADER)
            if len(header) < _BLOSC_HEADER or file.stat().st_size < int.from_bytes(header[12:16], "little"):
                return 0
            return int.from_bytes(header[4:8], "little")
        if codec == "zstd":
            return _zstd_size(stream.read(), expected)
        unpacker = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # zlib and gzip
        held, packed = 0, b""
        while held <= expected and not unpacker.eof:
            packed = unpacker.unconsumed_tail or stream.read(_PIECE)
            if not packed:
                return 0
            try:
                held += len(unpacker.decompress(packed, _PIECE))
            except zlib.error:
                return 0
        return held + (1 if unpacker.unused_data or stream.read(1) else 0)  # a second member unpacks to more


def _zstd_size(data: bytes, expected: int) -> int:
    """By the frame's own word, or by its blocks where it says nothing: none holds more than 128 KiB (RFC 8878)."""
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
