"""What runs converted models. Each of the project's own backends is a file here and a line in this one.

Others come from outside: an installed package names one in its entry points (group `jaxcryo.backends`), or a program
calls `register` (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import pathlib
from collections.abc import Mapping, Sequence

from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.runtime.backends.base import Backend, Fit
from jaxcryo.runtime.backends.flax import FlaxBackend
from jaxcryo.runtime.backends.openvino import OpenVinoBackend
from jaxcryo.runtime.backends.tensorrt import TensorRtBackend
from jaxcryo.runtime.manifest import ModelEntry
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.runtime.precision import PrecisionChoice

_BUILT_IN: tuple[Backend, ...] = (TensorRtBackend(), OpenVinoBackend(), FlaxBackend())
"""In the order in which `auto` asks them; the last one runs everywhere."""
_GROUP = "jaxcryo.backends"
_registered: dict[str, Backend] = {}


def register(added: Backend) -> None:
    """Makes a backend known in this process; `auto` asks it before the others. Replaces one of the same name."""
    _registered[added.name] = added


def backends() -> Mapping[str, Backend]:
    """All by name, in the order in which `auto` asks them."""
    added = _installed() | _registered
    return added | {b.name: b for b in _BUILT_IN if b.name not in added}


def backend_names() -> tuple[str, ...]:
    """The allowed values of `--backend`."""
    return ("auto", *backends())


def backend(name: str) -> Backend:
    """The backend of a name.

    Raises:
        InputError: there is none.
    """
    found = backends()
    if name not in found:
        raise InputError(f"{name!r} is not a known backend; expected one of {', '.join(backend_names())}")
    return found[name]


def choose_backend(name: str, folder: pathlib.Path, entries: Sequence[ModelEntry]) -> tuple[str, str]:
    """The backend that `auto` chooses on this machine for the models of a folder, and why, in words.

    If there is an NVIDIA GPU, this does not start JAX.
    """
    if name != "auto":
        return backend(name).name, "as asked for"
    passed: list[str] = []
    for candidate in backends().values():
        fit = candidate.fit(folder, entries)
        if fit.suits:
            return candidate.name, "; ".join(passed) or fit.reason
        if fit.reason:
            passed.append(fit.reason)
    raise InputError(f"no backend can run these models here ({'; '.join(passed)}); choose one with --backend")


def choose_precision(
    choice: PrecisionChoice, name: str, entries: Sequence[ModelEntry]
) -> tuple[tuple[ModelEntry, ...], str]:
    """The models, each with the precision that it will run in, and a phrase on which and why.

    Raises:
        InputError: the backend or this machine cannot do what was chosen.
    """
    return backend(name).precision(choice, entries)


def open_model(folder: pathlib.Path, entry: ModelEntry, name: str) -> OpenModel:
    """A model of a manifest, ready to run by a backend.

    Raises:
        InputError: its files cannot be used by this backend.
    """
    return OpenModel(
        name=entry.name,
        patch_zyx=entry.patch_zyx,
        stride_zyx=entry.stride_zyx,
        batch=entry.batch,
        classes=entry.model.classes,
        predict=backend(name).open(folder, entry),
        intensity=entry.intensity,
        padding=entry.inference.padding,
    )


def ensemble_types(entries: Sequence[ModelEntry]) -> tuple[ParticleType, ...]:
    """The particle types of models that are averaged: each threshold is the mean of the models'."""
    return tuple(
        dataclasses.replace(kinds[0], threshold=sum(k.threshold for k in kinds) / len(kinds))
        for kinds in zip(*(e.types for e in entries), strict=True)
    )


@functools.cache
def _installed() -> dict[str, Backend]:
    found: list[Backend] = [point.load()() for point in importlib.metadata.entry_points(group=_GROUP)]
    return {b.name: b for b in found}


__all__ = [
    "Backend", "Fit", "backend", "backend_names", "backends", "choose_backend", "choose_precision", "ensemble_types",
    "open_model", "register",
]  # fmt: skip
