"""The pickle of a PyTorch checkpoint, read without PyTorch and without executing anything in it.

A pickle is a program for a small machine that can call any importable function. Here the machine gets inert records
instead: every name that a pickle may ask for is in `_ADMITTED`, stands for a function of this file, and checks what it
is given. Any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from jaxcryo.errors import InputError

ReadBytes = Callable[[], NDArray[np.uint8]]
_MAX_EXPANDED = 1 << 20
"""Most elements of a tensor that has more of them than its storage (stride 0)."""
_STORED_DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DTYPE_NAMES = (
    *("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"),
    *("half", "float", "double", "long", "int", "short"),
)


class _Inert:
    """An object that a pickle cannot change: the BUILD instruction, which would set attributes, is refused."""

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError(f"the pickle tries to change a {type(self).__name__.strip('_')}")


class _Name(_Inert):
    """A constant that is kept by its name alone, such as torch.float32."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


class _StorageType(_Name):
    """The element type of a storage."""


class _Builder(_Inert):
    """An admitted name that may be called."""

    def __init__(self, name: str, build: Callable[..., Any]):
        self.name, self._build = name, build

    def __call__(self, *args: Any) -> Any:
        try:
            return self._build(*args)
        except (TypeError, ValueError, LookupError) as error:
            raise pickle.UnpicklingError(f"odd arguments for {self.name}: {error}") from error


class Storage(_Inert):
    """A stretch of the file that holds the elements of one or more tensors."""

    def __init__(self, read: ReadBytes, dtype: np.dtype[Any], bfloat16: bool, size: int):
        self.read, self.dtype, self.bfloat16, self.size = read, dtype, bfloat16, size


class Tensor(_Inert):
    """A view of a storage that has been found to lie inside it."""

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]):
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def load(self) -> NDArray[Any]:
        """The elements as a contiguous array; bfloat16 as float32."""
        elements = self.storage.read().view(self.storage.dtype)
        strides = tuple(s * elements.itemsize for s in self.stride)
        view = np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, strides, writeable=False)
        if self.storage.bfloat16:
            return (view.astype(np.uint32, order="C") << np.uint32(16)).view(np.float32)
        return np.asarray(view, elements.dtype.newbyteorder("="), order="C")


class _OrderedDict(dict[Any, Any]):
    """collections.OrderedDict; the attributes that PyTorch hangs on a state dict (`_metadata`) are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


def _ordered_dict(pairs: Any = ()) -> _OrderedDict:
    if type(pairs) not in (list, tuple):
        raise TypeError("expected pairs")
    return _OrderedDict(pairs)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any, hooks: Any, *_: Any) -> Tensor:
    if type(storage) is not Storage:
        raise TypeError(f"expected a storage, not a {type(storage).__name__}")
    for sizes in ((offset,), shape, stride):
        if type(sizes) is not tuple or any(type(n) is not int or n < 0 for n in sizes):
            raise ValueError(f"offset {offset!r}, shape {shape!r} and stride {stride!r} must be whole numbers from 0")
    if len(shape) != len(stride) or len(shape) > 16:
        raise ValueError(f"shape {shape} and stride {stride} do not go together")
    elements = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if (elements and last >= storage.size) or elements > max(storage.size, _MAX_EXPANDED):
        raise ValueError(
            f"a tensor of shape {shape}, stride {stride} at {offset} lies outside its storage of {storage.size}"
        )
    return Tensor(storage, offset, shape, stride)


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if type(data) is not Tensor:
        raise TypeError(f"expected a tensor, not a {type(data).__name__}")
    return data


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise TypeError("expected a tuple")
    return sizes


def _device(kind: Any, index: Any = None) -> _Name:
    if type(kind) is not str or type(index) not in (int, type(None)):
        raise TypeError("expected a device's name")
    return _Name(f"torch.device({kind!r})")


def _set(values: Any = ()) -> set[Any]:
    if type(values) is not list:
        raise TypeError("expected a list")
    return set(values)


def _bytes_of_text(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError("expected text in latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "__builtin__.set": _set,
    "builtins.set": _set,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "_codecs.encode": _bytes_of_text,
}
_ADMITTED: dict[str, _Inert] = {name: _Builder(name, build) for name, build in _BUILDERS.items()}
_ADMITTED |= {f"torch.{name}": _Name(f"torch.{name}") for name in _DTYPE_NAMES}
_ADMITTED |= {
    f"{module}.{name}": _StorageType(name) for module in ("torch", "torch.storage") for name in _STORED_DTYPES
}


class Reader(pickle.Unpickler):
    """Turns one pickle into containers, plain values and inert records.

    `open_storage` gives the way to read a storage of a key and its size in bytes, or raises an InputError.
    """

    def __init__(
        self, data: bytes, open_storage: Callable[[str, int], ReadBytes], *, order: Literal["<", ">"], name: str
    ):
        super().__init__(io.BytesIO(data))
        self._data, self._open_storage, self._order, self._file = data, open_storage, order, name
        self._storages: dict[tuple[str, str, int], Storage] = {}

    def load(self) -> Any:
        """The whole content.

        Raises:
            InputError: the pickle is damaged, or asks for what is not admitted.
        """
        try:
            # What an entry of the memo may claim of the memory is bounded before the machine runs.
            for operation, argument, _ in pickletools.genops(self._data):
                if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(self._data):
                    raise pickle.UnpicklingError(f"entry {argument} of the memo is out of range")
            return super().load()
        except InputError:
            raise
        except Exception as error:  # a damaged pickle fails in as many ways as there are instructions
            raise InputError(
                f"{self._file}: its pickle is damaged or not one of torch.save ({error or type(error).__name__}); "
                "expected tensors, containers and plain values: copy or save it again"
            ) from error

    def find_class(self, module: str, name: str) -> Any:
        """The inert stand-in for a name."""
        full = f"{module}.{name}"
        if full not in _ADMITTED:
            raise InputError(
                f"{self._file}: refused, because its pickle asks for {full}; only tensors, containers and plain values "
                "are read from a checkpoint, and nothing in it is executed. If you trust the file, save its tensors "
                "alone with PyTorch and port those: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'tensors.pth')"
            )
        return _ADMITTED[full]

    def persistent_load(self, reference: Any) -> Storage:
        """The storage that a reference names: ('storage', type, key, location, number of elements)."""
        match reference:
            case ("storage", _StorageType() as kind, str() as key, str(), int() as size) if size >= 0:
                pass
            case _:
                raise pickle.UnpicklingError(f"not a reference to a storage: {reference!r:.200}")
        dtype = np.dtype(_STORED_DTYPES[kind.name]).newbyteorder(self._order)
        if (kind.name, key, size) not in self._storages:
            read = self._open_storage(key, size * dtype.itemsize)
            self._storages[kind.name, key, size] = Storage(read, dtype, kind.name == "BFloat16Storage", size)
        return self._storages[kind.name, key, size]
