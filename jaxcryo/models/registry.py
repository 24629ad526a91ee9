"""The known architectures. Each of the project's own is a folder beside this file and a line here.

Others come from outside: an installed package names one in its entry points (group `jaxcryo.architectures`), or a
program calls `register` (docs/extending.md).
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping

from jaxcryo import serialize
from jaxcryo.config import NetworkConfig
from jaxcryo.errors import InputError
from jaxcryo.models.architecture import Architecture
from jaxcryo.models.tattaka import TATTAKA
from jaxcryo.models.yu4u import YU4U

_BUILT_IN = (YU4U, TATTAKA)
_GROUP = "jaxcryo.architectures"
_registered: dict[str, Architecture] = {a.name: a for a in _BUILT_IN}


def register(added: Architecture) -> None:
    """Makes an architecture known in this process; replaces one of the same name."""
    _registered[added.name] = added


def architectures() -> Mapping[str, Architecture]:
    """All by name, in the order in which they are offered."""
    return _registered | {name: a for name, a in _installed().items() if name not in _registered}


def architecture(name: str) -> Architecture:
    """The architecture of a name.

    Raises:
        InputError: there is none.
    """
    found = architectures()
    if name not in found:
        raise InputError(f"{name!r} is not a known architecture; expected one of {', '.join(found)}")
    return found[name]


@functools.cache
def _installed() -> dict[str, Architecture]:
    found = [point.load() for point in importlib.metadata.entry_points(group=_GROUP)]
    return {a.name: a for a in found}


serialize.tell_apart(NetworkConfig, by="arch", members=lambda: {n: a.config for n, a in architectures().items()})
