"""Which tomogram the picks of a run are from. It is kept beside them: a run is done only for that very tomogram."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence

from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.serialize import from_plain, to_plain
from jaxcryo.stores.address import Address, location
from jaxcryo.tomogram.ome_zarr import seen_at

FILE_NAME = "tomogram.json"
_EXPECTED = "expected the record of the tomogram that `infer` keeps beside a run's picks"
_BLOCK_BYTES = 4096
_SAMPLED_FILES = 16
_AT_ONCE = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """A tomogram's files as they were."""

    path: str
    """Absolute, links followed; or an address."""
    bytes: int
    modified_ns: int
    """When the newest file was changed."""
    sample: str
    """A digest of names, sizes and some blocks: it tells files apart whose times were lost in copying."""

    @classmethod
    def of(cls, path: str | pathlib.Path | Address) -> Origin:
        """A file, or all files of a folder or an address; a missing one is known by its path alone.

        Raises:
            InputError: an address does not answer.
        """
        path = location(path)
        if isinstance(path, Address):
            seen = seen_at(path)
            return cls(path=str(path), bytes=seen.bytes, modified_ns=seen.modified_ns, sample=seen.digest)
        if not path.exists():
            return cls(path=str(path), bytes=0, modified_ns=0, sample="")
        digest, total, modified = hashlib.sha256(), 0, 0
        files = sorted(_files(path)) if path.is_dir() else [path]
        every = max(-(-len(files) // _SAMPLED_FILES), 1)
        for number, file in enumerate(files):
            size, changed = file.stat().st_size, file.stat().st_mtime_ns
            total, modified = total + size, max(modified, changed)
            digest.update(f"{'' if file == path else file.relative_to(path)}\0{size}\0".encode())
            if number % every == 0:
                digest.update(_blocks(file, size))
        return cls(path=str(path.resolve()), bytes=total, modified_ns=modified, sample=digest.hexdigest()[:16])

    def is_same(self, other: Origin) -> bool:
        """Whether both are the same tomogram, even if it was moved with its times."""
        at_hand = bool(self.sample and other.sample)
        return dataclasses.replace(self, path="") == dataclasses.replace(other, path="") and (
            at_hand or self.path == other.path
        )


def write_origin(folder: pathlib.Path, origin: Origin) -> None:
    """Keeps it in the folder of a run; raises as `write_text` does."""
    write_text(folder / FILE_NAME, json.dumps(to_plain(origin), indent=1) + "\n")


def read_origin(folder: pathlib.Path) -> Origin:
    """The record in the folder of a run. Raises InputError if it is damaged or missing."""
    return from_plain(Origin, read_json(folder / FILE_NAME, _EXPECTED), str(folder / FILE_NAME))


def change_since(folder: pathlib.Path, run: Run) -> str | None:
    """A sentence on what has changed since the picks in the folder of a run were made; None if nothing has.

    Picks from before this record existed count as picks of the given tomogram.
    """
    if not (folder / FILE_NAME).exists():
        return None
    try:
        before = read_origin(folder)
        now = Origin.of(run.volume_path)
    except InputError as error:
        return str(error)
    if now.is_same(before):
        return None
    if now.path != before.path:
        return f"its picks are of another tomogram, {before.path}; now it is {now.path}"
    return f"{now.path} has changed since its picks were made"


def unchanged(runs_folder: pathlib.Path, runs: Sequence[Run]) -> tuple[set[str], dict[str, str]]:
    """The names of the runs whose tomogram is still that of their picks, and of the others what has changed."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:  # servers take their time
        found = pool.map(lambda run: change_since(runs_folder / run.name, run), runs)
        changes = dict(zip((run.name for run in runs), found, strict=True))
    return {n for n, c in changes.items() if c is None}, {n: c for n, c in changes.items() if c is not None}


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for root, _, names in os.walk(folder):
        yield from (pathlib.Path(root) / name for name in names)


def _blocks(file: pathlib.Path, size: int) -> bytes:
    blocks = []
    with file.open("rb") as opened:
        for start in sorted({0, max(size // 2, 0), max(size - _BLOCK_BYTES, 0)}):
            opened.seek(start)
            blocks.append(opened.read(_BLOCK_BYTES))
    return b"".join(blocks)
