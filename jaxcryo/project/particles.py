"""Which particles to look for: from a copick config, or from a short file of one's own.

The short file is TOML with a table for each particle, in the order of the heatmaps' channels:

    [ribosome]
    radius_angstrom = 150

    [apo-ferritin]
    radius_angstrom = 60
    weight = 2                # in the mean of the score, 1 if left out; 0 leaves it out of the mean
    threshold = 0.3           # used until a training has found a better one
    sigma_angstrom = 40       # of the target's Gaussian, else the recipe's rule
    color = [0, 255, 0]
"""

from __future__ import annotations

import pathlib
import tomllib
from typing import Any

from jaxcryo.domain import ParticleType, check_types
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, read_text
from jaxcryo.picks.formats import check_names
from jaxcryo.serialize import from_plain

_MAX_BYTES = 2**20
# Dotted keys nest a table at each dot, which takes quadratic time.
_MAX_TOML_BYTES = 2**16
_MAX_TYPES = 1000


def read_particles(path: str | pathlib.Path) -> tuple[ParticleType, ...]:
    """The particle types of a short file (`.toml`) or of a copick `config.json`, in its order.

    Of copick's `pickable_objects` only particles are taken; `metadata.score_weight` and `metadata.score_threshold` are
    used where they are given.

    Raises:
        InputError: the file cannot be read, names no particle, one twice, or one without a radius.
    """
    path = pathlib.Path(path)
    types = _from_toml(path) if path.suffix.lower() == ".toml" else _from_copick(path)
    if len(types) > _MAX_TYPES:
        raise InputError(f"{path}: lists {len(types)} particles; expected at most {_MAX_TYPES}")
    check_names([t.name for t in types], "particle", str(path))
    check_types(types)
    return types


def _from_toml(path: pathlib.Path) -> tuple[ParticleType, ...]:
    expected = "expected a table for each particle, such as [ribosome] and below it radius_angstrom = 150"
    text = read_text(path, expected, limit=_MAX_TOML_BYTES, kind="TOML")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML ({str(error)[:200]}); {expected}") from error
    types = []
    for name, table in content.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {name[:80]!r} is no table; {expected}")
        types.append(from_plain(ParticleType, {**table, "name": name}, f"{path}: {name[:80]}"))
    if not types:
        raise InputError(f"{path}: lists no particle; {expected}")
    return tuple(types)


def _from_copick(path: pathlib.Path) -> tuple[ParticleType, ...]:
    expected = "expected a copick config.json, or particles in a .toml file"
    content = read_json(path, expected, limit=_MAX_BYTES)
    objects = content.get("pickable_objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise InputError(f"{path}: {expected}; it has no list 'pickable_objects'")
    types = tuple(_of_object(path, entry) for entry in objects if not _is_other(entry))
    if not types:
        raise InputError(f"{path}: lists no particle; 'pickable_objects' needs at least one with is_particle true")
    return types


def _is_other(entry: Any) -> bool:
    return isinstance(entry, dict) and not entry.get("is_particle", True)


def _of_object(path: pathlib.Path, entry: Any) -> ParticleType:
    try:
        metadata = entry.get("metadata") or {}
        red, green, blue = (int(c) for c in (entry.get("color") or (255, 255, 255))[:3])
        return ParticleType(
            name=str(entry["name"]),
            radius_angstrom=float(entry["radius"]),
            weight=float(metadata.get("score_weight", 1.0)),
            threshold=float(metadata.get("score_threshold", 0.3)),
            color=(red, green, blue),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: the pickable object {str(entry)[:200]} cannot be used ({str(error)[:200]}); a particle needs "
            "'name' and 'radius' in ångströms"
        ) from error
