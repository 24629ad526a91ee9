"""Opens files of tensors: safetensors, PyTorch's zip checkpoints, models on the Hugging Face hub."""

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

from jaxcryo.convert.torch_zip import StoredTensor, StoredTensors, open_torch_zip
from jaxcryo.errors import InputError
from jaxcryo.files import read_json

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
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<ending>\.\w+)")
"""Names of a checkpoint's parts; `STEM.ENDING.index.json` lists them."""
_MOST_SHARDS = 1000


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
    if not _HUB_NAME.fullmatch(source) or path.suffix in (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".json"):
        raise InputError(
            f"{source}: no such file; expected a checkpoint (.safetensors, .bin, .pth, .ckpt) or a name on the "
            "Hugging Face hub such as timm/convnext_nano.in12k_ft_in1k"
        )
    return _download(source)


@contextlib.contextmanager
def open_source(path: pathlib.Path) -> Iterator[StoredTensors]:
    """The tensors in a file, to be read while the context lasts; the content decides the format, not the name.

    A checkpoint in several parts is opened by its index (`model.safetensors.index.json`).

    Raises:
        InputError: the file is damaged, of an unknown format, or one part of several.
    """
    if path.name.endswith(".index.json"):
        with contextlib.ExitStack() as stack:
            parts = [stack.enter_context(_open_file(part)) for part in _shards(path)]
            yield {name: tensor for part in parts for name, tensor in part.items()}
        return
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and int(shard["count"]) > 1:
        index = path.with_name(f"{shard['stem']}{shard['ending']}.index.json")
        raise InputError(
            f"{path}: is one of {int(shard['count'])} parts of a checkpoint; expected its index, {index}, with all "
            "parts beside it"
        )
    with _open_file(path) as tensors:
        yield tensors


def _shards(index: pathlib.Path) -> list[pathlib.Path]:
    """The files that an index lists, which lie beside it."""
    content = read_json(index, expected="expected the index of a checkpoint in several parts")
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{index}: is not the index of a checkpoint in several parts; expected a 'weight_map' in it")
    names = sorted(set(map(str, listed.values())))
    if len(names) > _MOST_SHARDS or any(pathlib.PurePath(name).name != name for name in names):
        raise InputError(f"{index}: lists {len(names)} files, not all beside it; expected the checkpoint's parts")
    missing = [name for name in names if not index.with_name(name).is_file()]
    if missing:
        raise InputError(
            f"{index}: lists {len(names)} parts, {len(missing)} of them missing ({', '.join(missing[:5])}); download "
            "all of them into its folder"
        )
    return [index.with_name(name) for name in names]


@contextlib.contextmanager
def _open_file(path: pathlib.Path) -> Iterator[StoredTensors]:
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
                raise InputError(
                    f"{path}: was already ported, or trained here; expected a checkpoint of another program"
                )
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
    # Opened anew for each tensor: the pages of a file that stays mapped count as memory in use.
    with safe_open(path, framework="numpy") as file:
        values: NDArray[Any] = file.get_tensor(name)
    return values.astype(np.float32) if values.dtype.name == "bfloat16" else values


def _download(name: str) -> pathlib.Path:
    by_hand = (
        f"download https://huggingface.co/{name}/resolve/main/{_HUB_FILE} in a browser and pass the file's path "
        "instead of the name"
    )
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{name}: no such file, and huggingface_hub, which could download it, is not installed; install it with "
            f"pip install huggingface_hub, or {by_hand}"
        ) from error
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(name, _HUB_FILE))
    except Exception as error:  # the hub's own errors, its HTTP client's, and those of the cache on disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name}: cannot be downloaded from the Hugging Face hub ({reason}); without a connection, {by_hand}"
        ) from error
