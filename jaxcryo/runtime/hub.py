"""Models by their name on the Hugging Face hub: `hf://user/name`, or `hf://user/name@revision`.

Only the manifest and the files that it lists are fetched, none of which can be a pickle, into the hub's own cache; from
there they are used without a connection. If `HF_ENDPOINT` is set, the hub is there.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from types import ModuleType
from typing import Any

from jaxcryo.errors import InputError
from jaxcryo.files import read_json
from jaxcryo.runtime.manifest import FILE_NAME

SUFFIXES = (".onnx", ".safetensors")
"""Of the files that hold models."""
_SCHEME = re.compile(r"hf:/{1,2}(.*)", re.DOTALL)
"""One slash as well: `pathlib` makes one of two."""
_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_MOST_BYTES = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubName:
    """A repository of models."""

    repository: str
    """`user/name`."""
    revision: str | None = None
    """A branch, a tag or a commit; None is the newest."""

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> HubName | None:
        """The name that a text is; None where it begins otherwise than with `hf:`.

        Raises:
            InputError: it begins so, and names no repository.
        """
        match = _SCHEME.fullmatch(os.fspath(text))
        if match is None:
            return None
        name = _NAME.fullmatch(match[1].rstrip("/"))
        if name is None:
            raise InputError(f"hf://{match[1]}: names no models; expected hf://user/name or hf://user/name@revision")
        return cls(repository=name["repository"], revision=name["revision"])

    def __str__(self) -> str:
        return f"hf://{self.repository}{'' if self.revision is None else f'@{self.revision}'}"


def models_folder(place: str | os.PathLike[str]) -> pathlib.Path:
    """The folder of models that a name stands for, fetched if it is not in the cache; a path is returned as it is.

    What the files hold is checked by `read_manifest`, each time.

    Raises:
        InputError: there is no such repository, it holds no models of this program, or neither the hub nor its cache
            has them.
    """
    name = HubName.parse(place)
    if name is None:
        return pathlib.Path(place)
    manifest = _fetch(name, FILE_NAME, name.revision)
    for file in _listed(name, manifest):
        # Of the manifest's own commit, whatever is published meanwhile.
        _fetch(name, file, manifest.parent.name)
    return manifest.parent


def hub(name: HubName) -> ModuleType:
    """The package that talks to the hub.

    Raises:
        InputError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise InputError(
            f"{name}: models by name need huggingface_hub; install it with pip install huggingface_hub"
        ) from error
    return huggingface_hub


def endpoint() -> str | None:
    """The address of the hub; None for the usual one."""
    return os.environ.get("HF_ENDPOINT") or None


def first_line(error: Exception) -> str:
    """What an error says first."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _fetch(name: HubName, file: str, revision: str | None) -> pathlib.Path:
    package = hub(name)
    errors: Any = package.errors
    try:
        return pathlib.Path(package.hf_hub_download(name.repository, file, revision=revision, endpoint=endpoint()))
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name}: the repository has no revision {revision}; leave it out for the newest") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: the hub has no such repository, or does not show it to you; check the name, or sign in with "
            "'hf auth login' (or set HF_TOKEN)"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"{name}: the hub cannot be reached, and {file} is not in its cache on this machine; fetch the models once "
            "with a connection"
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"{name}: has no {file}; expected models that 'jaxcryo publish' put there") from error
    except Exception as error:  # of the hub's HTTP client, and of the cache on disk
        raise InputError(f"{name}: {file} cannot be fetched ({first_line(error)}); try again later") from error


def _listed(name: HubName, manifest: pathlib.Path) -> list[str]:
    """The files that a manifest lists; `read_manifest` looks at all else."""
    data = read_json(manifest, "expected the manifest of published models", limit=_MOST_BYTES)
    models = data.get("models") if isinstance(data, dict) else None
    known = [m for m in models if isinstance(m, dict)] if isinstance(models, list) else []
    files: list[Any] = [m.get(key) for m in known for key in ("onnx_file", "weights_file")]
    files += [m["int8"].get("onnx_file") for m in known if isinstance(m.get("int8"), dict)]
    if not files:
        raise InputError(f"{name}: its {FILE_NAME} lists no model; expected models that 'jaxcryo publish' put there")
    for file in files:
        if not isinstance(file, str) or pathlib.PurePath(file).name != file or not file.endswith(SUFFIXES):
            raise InputError(
                f"{name}: its {FILE_NAME} lists {str(file)[:80]!r}; only {' and '.join(SUFFIXES)} files beside it are "
                "fetched"
            )
    return sorted(set(files))
