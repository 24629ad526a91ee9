"""Thresholds of particle types, in a file as `{"ribosome": 0.5, …}`, and picks above them."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping

import numpy as np

from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json

_EXPECTED = 'expected a threshold for each particle, as {"ribosome": 0.5}'


def read_thresholds(path: str | pathlib.Path) -> dict[str, float]:
    """The thresholds by name of the particle.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    content = read_json(path, _EXPECTED, limit=2**20)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no thresholds; {_EXPECTED}")
    for name, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise InputError(f"{path}: the threshold of {name[:80]!r} is not a finite number; {_EXPECTED}")
    return {name: float(value) for name, value in content.items()}


def with_thresholds(types: tuple[ParticleType, ...], thresholds: Mapping[str, float]) -> tuple[ParticleType, ...]:
    """The types with these thresholds instead of their own; a type that is not named keeps its own.

    Raises:
        InputError: a name is not that of a type.
    """
    names = [t.name for t in types]
    unknown = sorted(set(thresholds) - set(names))
    if unknown:
        raise InputError(
            f"thresholds of {', '.join(unknown)}; the types are {', '.join(names)}: correct them, or pass --particles"
        )
    return tuple(dataclasses.replace(t, threshold=thresholds.get(t.name, t.threshold)) for t in types)


def above_thresholds(picks: Picks, thresholds: Mapping[str, float]) -> Picks:
    """The picks whose score is above the threshold of their type; a type without one keeps all.

    Raises:
        InputError: picks have no scores, or a threshold is for an unknown type.
    """
    types = with_thresholds(picks.types, thresholds)
    return dataclasses.replace(picks.above([thresholds.get(t.name, -np.inf) for t in types]), types=types)
