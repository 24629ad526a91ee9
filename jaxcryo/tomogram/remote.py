"""OME-Zarr on servers: chunks are fetched several at a time, ahead of their use, in bounded memory."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import itertools
import math
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import numpy as np
import zarr.abc.store
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from jaxcryo.errors import InputError
from jaxcryo.stores.address import Address
from jaxcryo.stores.cache import Cache
from jaxcryo.stores.objects import Objects, RefusedError, Span, Stat
from jaxcryo.tomogram.chunks import TRUNCATED, ChunkRule, chunk_rule, of_absent

METADATA_FILES = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_CONNECTIONS = 32
_AHEAD_BYTES = 2**28
"""Most bytes of unpacked chunks that are requested ahead."""

Future = concurrent.futures.Future[bytes | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a tomogram's files, all or some of them."""

    bytes: int
    modified_ns: int
    """When the newest one was changed."""
    digest: str


class RemoteStore(zarr.abc.store.Store):
    """The store through which zarr reads an address.

    A bucket is listed, so that absent chunks are not requested. `expect` says which chunks will be needed.

    Raises:
        InputError: the address cannot be reached, or nothing is there. Reading raises it too, if a chunk cannot be
            fetched or does not fit its array.
    """

    supports_writes = False
    supports_deletes = False

    def __init__(self, address: Address, cache: Cache | None = None) -> None:
        super().__init__(read_only=True)
        self.address = address
        self.objects = Objects(address)
        self.refusal: RefusedError | None = None
        """Why reading metadata was refused, which may be why none are found."""
        self.listing = _listing(self.objects)
        self.rule: ChunkRule | None = None
        self.missing: collections.deque[str] = collections.deque()
        """Chunks that were requested and do not exist."""
        self.version = ""
        """A name that changes with the contents; chunks are cached under it."""
        self.cache = cache
        self._metadata: dict[str, str] = {}
        self._lock = threading.Lock()
        self._wanted: collections.deque[str] = collections.deque()
        self._coming: dict[str, Future] = {}

    @property
    def supports_listing(self) -> bool:
        """Known for buckets that may be listed."""
        return self.listing is not None

    def settle(self, array: Any) -> str | None:
        """Learns what the chunks of an array must be like, before any is read; returns a sentence on absent ones.

        Raises:
            InputError: as `chunk_rule` does.
        """
        self.rule = rule = chunk_rule(self.address, array)
        self.version = self.seen(array).digest
        if self.listing is None:
            return None
        keys = chunk_keys(array, [range(n) for n in rule.counts])
        there = np.fromiter((key in self.listing for key in keys), np.bool_, count=math.prod(rule.counts))
        return of_absent(~there.reshape(rule.counts), array)

    def seen(self, array: Any = None) -> Seen:
        """All listed files; without a listing, the metadata that were read and a few chunks of the array."""
        stats: dict[str, Stat | None] = dict(self.listing or {})
        if self.listing is None:
            counts = chunk_rule(self.address, array).counts
            count = math.prod(counts)
            chosen = sorted({0, count // 2, count - 1})
            keys = [chunk_key(array, [int(i) for i in np.unravel_index(n, counts)]) for n in chosen]
            stats = {key: _stat_or_none(self.objects, key) for key in keys}
        there = [s for s in stats.values() if s is not None]
        content = repr((sorted(self._metadata.items()) if self.listing is None else (), sorted(stats.items())))
        return Seen(
            bytes=sum(s.bytes for s in there),
            modified_ns=max((s.modified_ns for s in there), default=0),
            digest=hashlib.sha256(content.encode()).hexdigest()[:16],
        )

    def expect(self, keys: Iterable[str]) -> None:
        """Requests chunks in this order, as many at a time as memory allows; replaces an earlier order."""
        with self._lock:
            self._wanted = collections.deque(k for k in keys if self.listing is None or k in self.listing)
            expected = set(self._wanted)
            for key in [k for k, f in self._coming.items() if k not in expected or _has_failed(f)]:
                self._coming.pop(key).cancel()
            self._ask()

    def _ask(self) -> None:
        size = self.rule.size if self.rule is not None else 1
        most = min(max(_AHEAD_BYTES // size, 2), 2 * _CONNECTIONS)
        while self._wanted and len(self._coming) < most:
            key = self._wanted.popleft()
            if key not in self._coming:
                self._coming[key] = _connections().submit(self._read, key)

    def _take(self, key: str, span: Span | None) -> Future:
        with self._lock:
            found = self._coming.pop(key, None) if span is None else None
            if found is None:
                if span is None and key in self._wanted:
                    self._wanted.remove(key)
                found = _connections().submit(self._read, key, span)
            self._ask()
            return found

    def _read(self, key: str, span: Span | None = None) -> bytes | None:
        if self.listing is not None and key not in self.listing:
            return None
        if key.rpartition("/")[2] in METADATA_FILES:
            return self._read_metadata(key)
        check: Callable[[bytes], str | None] = lambda data: None  # noqa: E731
        if self.rule is not None and span is None:
            check = functools.partial(_fault, self.rule)
        name = f"{self.address}\0{self.version}\0{key}\0{span}"
        if self.cache is not None:
            kept = self.cache.get(name)
            if kept is not None and check(kept) is None:
                return kept
        data = self.objects.get(key, span, check)
        if data is None:
            self.missing.append(key)
        elif self.cache is not None:
            self.cache.put(name, data)
        return data

    def _read_metadata(self, key: str) -> bytes | None:
        try:
            data = self.objects.get(key)
        except RefusedError as refusal:  # also for what is not there, where nobody may ask what is
            self.refusal = refusal
            return None
        if data is not None:
            self._metadata[key] = hashlib.sha256(data).hexdigest()
        return data

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        coming = asyncio.wrap_future(self._take(key, _span(byte_range)))
        # If several fail together, one is reported; asyncio would print the others.
        coming.add_done_callback(lambda done: done.cancelled() or done.exception())
        data = await coming
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))

    async def exists(self, key: str) -> bool:
        if self.listing is not None:
            return key in self.listing
        return await asyncio.to_thread(self.objects.stat, key) is not None

    async def list(self) -> AsyncIterator[str]:
        for key in self.listing or ():
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self.listing or ():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = prefix.rstrip("/") + "/" if prefix else ""
        inside = {key[len(start) :].partition("/")[0] for key in self.listing or () if key.startswith(start)}
        for name in sorted(inside):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __str__(self) -> str:
        return str(self.address)


class RemoteVoxels:
    """An array whose next chunks are fetched while the last ones are used; indexing reads, with slices for z, y and x.

    Absent chunks are warned of once.
    """

    def __init__(self, voxels: Any, array: Any, store: RemoteStore) -> None:
        self._voxels, self._array, self._store = voxels, array, store
        self._said = False
        self.shape: tuple[int, ...] = tuple(voxels.shape)
        self.dtype = voxels.dtype
        self.chunks: tuple[int, ...] = tuple(array.chunks[-3:])
        """The size of one read."""

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Any:
        z, y, x = (range(*one.indices(n)) for one, n in zip(key, self.shape, strict=True))
        if self._array.shards is None:  # of a shard only parts are asked for
            keys = self._keys(z, y, x)
            ahead = range(z.stop, min(z.stop + len(z), self.shape[0]))
            if len(z) >= self.chunks[0] and len(y) * len(x) == math.prod(self.shape[1:]):
                keys += self._keys(ahead, y, x)
            self._store.expect(dict.fromkeys(keys))
        values = self._voxels[key]
        self._warn()
        return values

    def _keys(self, *ranges: range) -> list[str]:
        places = [
            range(r.start // c, (r.stop - 1) // c + 1) if len(r) else range(0)
            for r, c in zip(ranges, self.chunks, strict=True)
        ]
        return list(chunk_keys(self._array, [range(1)] * (self._array.ndim - 3) + places))

    def _warn(self) -> None:
        store = self._store
        if store.missing and not self._said:
            self._said = True
            warnings.warn(
                f"{store.address / store.missing[0]}: is absent, and perhaps others are; absent chunks are read as the "
                f"fill value ({self._array.fill_value or 0:g})",
                stacklevel=4,
            )
        if store.cache is not None and (fault := store.cache.fault) is not None:
            store.cache.fault = None
            warnings.warn(fault, stacklevel=4)


def chunk_key(array: Any, place: Sequence[int]) -> str:
    """The key of a chunk's file (of its shard, if there are shards) in the array's store."""
    return f"{array.path}/{array.metadata.encode_chunk_key(tuple(place))}".lstrip("/")


def chunk_keys(array: Any, places: Sequence[range]) -> Iterable[str]:
    """The keys of a box of chunks."""
    return (chunk_key(array, place) for place in itertools.product(*places))


@functools.cache
def _connections() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="fetch")


def _listing(objects: Objects) -> dict[str, Stat] | None:
    """All objects; None if the server does not list them."""
    try:
        listing = objects.listing()
    except RefusedError:
        return None
    if not listing:
        raise InputError(f"{objects.address}: nothing lies there; expected an OME-Zarr folder")
    return listing


def _stat_or_none(objects: Objects, key: str) -> Stat | None:
    """None also if the server does not tell."""
    try:
        return objects.stat(key)
    except InputError:
        return None


def _has_failed(future: Future) -> bool:
    return future.done() and not future.cancelled() and future.exception() is not None


def _fault(rule: ChunkRule, data: bytes) -> str | None:
    fault = rule.fault(len(data), functools.partial(io.BytesIO, data))
    return None if fault is None else f"it is {'truncated' if fault == TRUNCATED else 'larger than its array says'}"


def _span(byte_range: ByteRequest | None) -> Span | None:
    match byte_range:
        case None:
            return None
        case RangeByteRequest():
            return byte_range.start, byte_range.end
        case OffsetByteRequest():
            return byte_range.offset, None
        case SuffixByteRequest():
            return byte_range.suffix
