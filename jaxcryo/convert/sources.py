"""Opening whatever holds tensors: safetensors, PyTorch's zip checkpoints, models on the Hugging Face hub."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from jaxcryo.convert.stored import StoredTensor, StoredTensors
from jaxcryo.convert.torch_zip import open_torch_zip
from jaxcryo.errors import InputError

_HUB_NAME = re.compile(r"[\w-]+/[\w.-]+")
_HUB_FILE = "model.safetensors"
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "float32",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def locate(source: str) -> pathlib.Path:
    """The file that a path names, or that a hub name such as `timm/resnetrs50.tf_in1k` stands for (downloaded once).

    Raises:
        InputError: there is no such file, or the hub cannot be reached.
    """
    path = pathlib.Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{source}: is a folder; expected a file, such as {path / _HUB_FILE}")
    if not _HUB_NAME.fullmatch(source) or path.suffix in (".safetensors", ".bin", ".pth", ".pt", ".ckpt"):
        raise InputError(
            f"{source}: no such file; expected a checkpoint (.safetensors, .bin, .pth, .ckpt) or a name on the "
            "Hugging Face hub such as timm/convnext_nano.in12k_ft_in1k"
        )
    return _download(source)


@contextlib.contextmanager
def open_source(path: pathlib.Path) -> Iterator[StoredTensors]:
    """The tensors in a file, to be read while the context lasts; its content decides what it is, not its name.

    Raises:
        InputError: the file is damaged, or of a kind that is not understood.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a checkpoint") from error
    if start[8:9] == b"{":
        yield _safetensors(path)
    else:
        with open_torch_zip(path) as checkpoint:
            yield checkpoint


def _safetensors(path: pathlib.Path) -> dict[str, StoredTensor]:
    found = {}
    try:
        with safe_open(path, framework="numpy") as file:
            if "jaxcryo" in (file.metadata() or {}):
                raise InputError(f"{path}: is ported already, or was trained here; expected somebody else's checkpoint")
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                kind = part.get_dtype()
                if kind not in _DTYPES:
                    raise InputError(f"{path}: {name} is {kind}; expected one of {', '.join(_DTYPES)}")
                found[name] = StoredTensor(
                    shape=tuple(part.get_shape()),
                    dtype=_DTYPES[kind],
                    read=functools.partial(_read_safetensor, path, name),
                )
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); copy or download it again") from error
    return found


def _read_safetensor(path: pathlib.Path, name: str) -> NDArray[Any]:
    # Opened for each tensor: the pages of a file that stays mapped count as memory in use.
    with safe_open(path, framework="numpy") as file:
        values: NDArray[Any] = file.get_tensor(name)
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _download(name: str) -> pathlib.Path:
    by_hand = (
        f"download https://huggingface.co/{name}/resolve/main/{_HUB_FILE} in a browser and give the file's path "
        "instead of the name"
    )
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{name}: no such file, and huggingface_hub is not installed to download it; install it with "
            f"pip install 'jaxcryo[hub]', or {by_hand}"
        ) from error
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, _HUB_FILE))
    except Exception as error:  # the hub's own errors, its HTTP client's, and those of the cache on disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name}: cannot be downloaded from the Hugging Face hub ({reason}); without a connection, {by_hand}"
        ) from error
