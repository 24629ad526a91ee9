"""Which particles to look for: from a copick config, or from a short file that users write.

The short file is TOML with a table for each particle, in the order of the heatmaps' channels:

    [ribosome]
    radius_angstrom = 150

    [apo-ferritin]
    radius_angstrom = 60
    weight = 2                # in the mean of the score, 1 if left out; 0 leaves it out of the mean
    threshold = 0.3           # used until a training has found a better one
    sigma_angstrom = 40       # of the target's Gaussian, else the recipe's rule
    color = [0, 255, 0]
    structure = "6pxm.cif"    # PDB, mmCIF or MRC map, beside this file; phantoms are made from it

In a copick config a structure is `metadata.structure`. Where phantoms are made, a particle with a structure needs no
radius: it is measured.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
from collections.abc import Callable
from typing import Any

from jaxcryo.domain import ParticleType, check_types
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, read_text
from jaxcryo.picks.formats import check_names
from jaxcryo.serialize import from_plain

_MAX_BYTES = 2**20
# Each dot of a dotted key nests another table, which takes quadratic time.
_MAX_TOML_BYTES = 2**16
_MAX_TYPES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructuredType:
    """A particle type with the structure it names: a file, a structure that comes with the package, or ''."""

    type: ParticleType
    structure: str = ""


Measure = Callable[[str], float]
"""The radius of a structure in ångströms."""


def read_particles(path: str | pathlib.Path) -> tuple[ParticleType, ...]:
    """The particle types of a short file (`.toml`) or of a copick `config.json`, in its order.

    Copick's `pickable_objects` count if they are particles; `metadata.score_weight` and `metadata.score_threshold` are
    used where they are given.

    Raises:
        InputError: the file cannot be read, names no particle, or names one twice or without a radius.
    """
    return tuple(s.type for s in read_structured_particles(path, measure=None))


def read_structured_particles(path: str | pathlib.Path, *, measure: Measure | None) -> tuple[StructuredType, ...]:
    """The particle types as `read_particles` reads them, with the structures that they name.

    A type without a radius gets what `measure` finds for its structure. A structure is a path from the file's folder,
    or the name of one that comes with the package.

    Raises:
        InputError: as `read_particles` does.
    """
    path = pathlib.Path(path)
    entries = _from_toml(path, measure) if path.suffix.lower() == ".toml" else _from_copick(path, measure)
    if len(entries) > _MAX_TYPES:
        raise InputError(f"{path}: lists {len(entries)} particles; expected at most {_MAX_TYPES}")
    check_names([e.type.name for e in entries], "particle", str(path))
    check_types([e.type for e in entries])
    return entries


def _structure(path: pathlib.Path, name: str, value: Any) -> str:
    """The structure as a path that is valid from anywhere; a word that is not a file names a packaged one."""
    if not isinstance(value, str) or not value:
        raise InputError(f"{path}: {name[:80]}: the structure is {str(value)[:80]!r}; expected a file's name")
    beside = path.parent / value
    return str(beside) if beside.suffix or beside.is_file() else value


def _measured(path: pathlib.Path, name: str, structure: str, measure: Measure | None) -> float:
    if measure is None:
        raise InputError(
            f"{path}: {name[:80]}: radius_angstrom is missing; `jaxcryo phantom` and trainings from structures measure "
            f"it from {pathlib.Path(structure).name}, here it has to be given"
        )
    return measure(structure)


def _from_toml(path: pathlib.Path, measure: Measure | None) -> tuple[StructuredType, ...]:
    expected = "expected a table for each particle, such as [ribosome] and below it radius_angstrom = 150"
    text = read_text(path, expected, limit=_MAX_TOML_BYTES, kind="TOML")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not TOML ({str(error)[:200]}); {expected}") from error
    types = []
    for name, table in content.items():
        if not isinstance(table, dict):
            raise InputError(f"{path}: {name[:80]!r} is not a table; {expected}")
        fields = {**table, "name": name}
        structure = _structure(path, name, fields.pop("structure")) if "structure" in fields else ""
        if structure and "radius_angstrom" not in fields:
            fields["radius_angstrom"] = _measured(path, name, structure, measure)
        type_ = from_plain(ParticleType, fields, f"{path}: {name[:80]}")
        types.append(StructuredType(type=type_, structure=structure))
    if not types:
        raise InputError(f"{path}: lists no particle; {expected}")
    return tuple(types)


def _from_copick(path: pathlib.Path, measure: Measure | None) -> tuple[StructuredType, ...]:
    expected = "expected a copick config.json, or particles in a .toml file"
    content = read_json(path, expected, limit=_MAX_BYTES)
    objects = content.get("pickable_objects") if isinstance(content, dict) else None
    if not isinstance(objects, list):
        raise InputError(f"{path}: {expected}; it has no list 'pickable_objects'")
    types = tuple(_of_object(path, entry, measure) for entry in objects if not _is_other(entry))
    if not types:
        raise InputError(f"{path}: lists no particle; 'pickable_objects' needs at least one with is_particle true")
    return types


def _is_other(entry: Any) -> bool:
    return isinstance(entry, dict) and not entry.get("is_particle", True)


def _of_object(path: pathlib.Path, entry: Any, measure: Measure | None) -> StructuredType:
    try:
        metadata = entry.get("metadata") or {}
        red, green, blue = (int(c) for c in (entry.get("color") or (255, 255, 255))[:3])
        name = str(entry["name"])
        structure = _structure(path, name, metadata["structure"]) if "structure" in metadata else ""
        radius = entry.get("radius")
        if structure and radius is None:
            radius = _measured(path, name, structure, measure)
        type_ = ParticleType(
            name=name,
            radius_angstrom=float(entry["radius"] if radius is None else radius),
            weight=float(metadata.get("score_weight", 1.0)),
            threshold=float(metadata.get("score_threshold", 0.3)),
            color=(red, green, blue),
        )
        return StructuredType(type=type_, structure=structure)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: the pickable object {str(entry)[:200]} cannot be used ({str(error)[:200]}); a particle needs "
            "'name' and 'radius' in ångströms"
        ) from error
