"""PyTorch's zip checkpoints (`torch.save` since 1.6), read without PyTorch. Tensors stay in the file until read."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jaxcryo.convert.torch_pickle import ReadBytes, Reader, Tensor
from jaxcryo.errors import InputError

_MAX_PICKLE_BYTES = 64 << 20
"""A real checkpoint's pickle has about 200 bytes a tensor."""
_MAX_RATIO = 20
"""torch.save does not compress, and zipping weights again gains little. A higher ratio is a zip bomb."""
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_PIECE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Shape and type of a tensor, and a way to read it; only `read` costs memory."""

    shape: tuple[int, ...]
    dtype: str
    """NumPy's name of the type; bfloat16 is read as float32."""
    read: Callable[[], NDArray[Any]]

    @property
    def is_floating(self) -> bool:
        """Whether the values are floating-point numbers, not integers or booleans."""
        return "float" in self.dtype


StoredTensors = Mapping[str, StoredTensor]
"""The tensors of a file by their names, nested names joined by dots."""


class TorchCheckpoint(Mapping[str, StoredTensor]):
    """The tensors of a checkpoint by name, those in nested containers as `state_dict.model.head.weight`.

    A context manager: the file stays open while tensors may be read.
    """

    def __init__(self, archive: zipfile.ZipFile, content: Any, path: pathlib.Path):
        self._archive = archive
        self._tensors = _named_tensors(content, path)
        self.content = content
        """Everything in the checkpoint: containers, plain values, and inert records in place of tensors."""

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


def open_torch_zip(path: str | pathlib.Path) -> TorchCheckpoint:
    """The checkpoint in a file.

    Raises:
        InputError: the file is missing, damaged, of another kind, or asks for something that is neither a tensor, a
            container nor a plain value.
    """
    path = pathlib.Path(path)
    archive = _open_archive(path)
    try:
        _check_sizes(archive, path)
        root = _root(archive, path)
        members = archive.NameToInfo
        order = members.get(f"{root}byteorder")
        reader = Reader(
            _read_member(archive, members[f"{root}data.pkl"], path).tobytes(),
            lambda key, size: _storage_reader(archive, f"{root}data/{key}", size, path),
            order=">" if order and _read_member(archive, order, path).tobytes().strip() == b"big" else "<",
            name=str(path),
        )
        return TorchCheckpoint(archive, reader.load(), path)
    except BaseException:
        archive.close()
        raise


def _open_archive(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_MAGIC))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a PyTorch checkpoint") from error
    if start == _LEGACY_MAGIC:
        raise InputError(
            f"{path}: is in the format of PyTorch before 1.6; expected a zip checkpoint. Save it again with PyTorch: "
            "torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
        )
    if not start.startswith(b"PK"):
        raise InputError(f"{path}: is not a PyTorch checkpoint; expected a zip file, it starts with {start[:8]!r}")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: is cut short or damaged ({error}); copy or download it again") from error


def _check_sizes(archive: zipfile.ZipFile, path: pathlib.Path) -> None:
    """Refuses a file that would become much larger than it is, before anything is read."""
    members = archive.infolist()
    for m in members:
        stored = m.compress_type == zipfile.ZIP_STORED
        if m.file_size > (1 if stored else _MAX_RATIO) * m.compress_size:
            raise InputError(
                f"{path}: refused, {m.filename} would unpack from {m.compress_size} to {m.file_size} bytes; "
                "expected what torch.save writes, which is not compressed"
            )
        if m.filename.endswith("data.pkl") and m.file_size > _MAX_PICKLE_BYTES:
            raise InputError(
                f"{path}: refused, its pickle has {m.file_size} bytes; expected at most {_MAX_PICKLE_BYTES}, "
                "for a checkpoint's tensors are not in its pickle"
            )
    if sum(m.compress_size for m in members) > path.stat().st_size:
        raise InputError(
            f"{path}: refused, its members claim more bytes than the file has; expected whole, separate ones"
        )


def _root(archive: zipfile.ZipFile, path: pathlib.Path) -> str:
    """The prefix of every member's name: a folder named after the file."""
    roots = [n.removesuffix("data.pkl") for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
    if not roots:
        raise InputError(f"{path}: is a zip file without data.pkl; expected a checkpoint that torch.save wrote")
    return min(roots, key=len)


def _storage_reader(archive: zipfile.ZipFile, member_name: str, size: int, path: pathlib.Path) -> ReadBytes:
    member = archive.NameToInfo.get(member_name)
    if member is None:
        raise InputError(f"{path}: {member_name} is not in the file; the checkpoint is damaged: copy or save it again")
    if member.file_size != size:
        raise InputError(
            f"{path}: {member_name} has {member.file_size} bytes, its type and length need {size}; the checkpoint is "
            "damaged: copy or save it again"
        )
    return functools.partial(_read_member, archive, member, path)


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: pathlib.Path) -> NDArray[np.uint8]:
    """A member's bytes, read piece by piece so that only one copy of them is held."""
    data = np.empty(member.file_size, np.uint8)
    position = 0
    try:
        with archive.open(member) as file:
            while piece := file.read(_PIECE_BYTES):
                data[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
                position += len(piece)
    except Exception as error:  # zipfile, its decompressors and the disk raise their own kinds
        raise InputError(f"{path}: {member.filename} is damaged ({error}); copy or download the file again") from error
    if position != len(data):
        raise InputError(f"{path}: {member.filename} ends after {position} of {len(data)} bytes; copy the file again")
    return data


def _named_tensors(content: Any, path: pathlib.Path) -> dict[str, StoredTensor]:
    """All tensors by dotted name; a container that occurs twice counts only where it is found first."""
    found: dict[str, StoredTensor] = {}
    seen: set[int] = set()
    pending: list[tuple[str, Any]] = [("", content)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Tensor):
            if name in found:
                raise InputError(f"{path}: two tensors are called {name!r}; expected names that differ")
            dtype = "float32" if value.storage.bfloat16 else value.storage.dtype.name
            found[name] = StoredTensor(shape=value.shape, dtype=dtype, read=value.load)
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in reversed(list(pairs)):
                label = str(key) if isinstance(key, str | int) else type(key).__name__
                pending.append((f"{name}.{label}" if name else label, inner))
    return found
