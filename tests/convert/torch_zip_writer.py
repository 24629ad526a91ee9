"""Writes PyTorch's zip checkpoints by hand, so that tests need no PyTorch and can write what PyTorch never would."""

from __future__ import annotations

import dataclasses
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclasses.dataclass(frozen=True)
class Global:
    """An importable name."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """A name called with arguments, and the state that BUILD would give the result."""

    what: Global
    args: tuple[Any, ...]
    state: Any = None


@dataclasses.dataclass(frozen=True)
class Persistent:
    """What `persistent_load` is asked for."""

    reference: Any


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor as a view of a storage, with sizes that need not be right."""

    storage: np.ndarray
    offset: Any
    shape: Any
    stride: Any


def write_torch_zip(
    path: pathlib.Path,
    content: Any,
    *,
    order: str = "little",
    compression: int = zipfile.ZIP_STORED,
    root: str = "archive",
    skip: str = "",
) -> pathlib.Path:
    """Writes a checkpoint; arrays become tensors, uint16 arrays bfloat16 ones. `skip` leaves a member out."""
    storages: dict[str, np.ndarray] = {}
    members = {"data.pkl": pickle_of(content, storages), "byteorder": order.encode(), "version": b"3\n"}
    for key, array in storages.items():
        members[f"data/{key}"] = array.astype(array.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            if name != skip:
                archive.writestr(f"{root}/{name}", data)
    return path


def pickle_of(content: Any, storages: dict[str, np.ndarray] | None = None) -> bytes:
    """The protocol-2 pickle of plain values and the records above."""
    return b"\x80\x02" + _code(content, {} if storages is None else storages) + b"."


def _code(value: Any, storages: dict[str, np.ndarray]) -> bytes:
    def many(values: Any) -> bytes:
        return b"".join(_code(v, storages) for v in values)

    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            data = value.to_bytes(8, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return _code(Call(Global("_codecs", "encode"), (value.decode("latin1"), "latin1")), storages)
        case tuple():
            return b"(" + many(value) + b"t"
        case list():
            return b"](" + many(value) + b"e"
        case set():
            return _code(Call(Global("__builtin__", "set"), (list(value),)), storages)
        case dict():
            return b"}(" + many(part for pair in value.items() for part in pair) + b"u"
        case np.ndarray():
            stride = tuple(s // value.itemsize for s in np.ascontiguousarray(value).strides) if value.ndim else ()
            return _code(View(np.ascontiguousarray(value).reshape(-1), 0, value.shape, stride), storages)
        case View():
            key = next((k for k, v in storages.items() if v is value.storage), str(len(storages)))
            storages[key] = value.storage
            kind = Global("torch", STORAGES[value.storage.dtype.name])
            storage = Persistent(("storage", kind, key, "cpu", value.storage.size))
            args = (storage, value.offset, value.shape, value.stride, False, Call(ORDERED_DICT, ()))
            return _code(Call(Global("torch._utils", "_rebuild_tensor_v2"), args), storages)
        case Persistent():
            return _code(value.reference, storages) + b"Q"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            built = b"" if value.state is None else _code(value.state, storages) + b"b"
            return _code(value.what, storages) + _code(value.args, storages) + b"R" + built
        case _:
            raise TypeError(f"{type(value).__name__} has no opcodes here")


ORDERED_DICT = Global("collections", "OrderedDict")
