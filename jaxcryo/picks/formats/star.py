"""Tables of STAR files, parsed by the package starfile, and what RELION's and Warp's have in common."""

from __future__ import annotations

import linecache
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.errors import InputError
from jaxcryo.files import check_file
from jaxcryo.picks.formats.base import orientations
from jaxcryo.picks.geometry import Note

TOMOGRAM = "rlnTomoName"
MICROGRAPH = "rlnMicrographName"
NAMES_BLOCK, NAME = "jaxcryo_particle_types", "jaxcryoParticleType"
SECOND_TYPE, NO_TYPE = "jaxcryoSecondType", "none_"
"""The best other type at a position; "none", which no type can be called, if there is none."""
_TEXTS = [TOMOGRAM, MICROGRAPH, NAME, SECOND_TYPE, "wrpSourceName"]
_EXPECTED = "expected a STAR file of particles"

Blocks = dict[str, Any]


def read_blocks(path: pathlib.Path, expected: str = _EXPECTED) -> Blocks:
    """The tables of a STAR file by name, as pandas frames.

    Raises:
        InputError: the file cannot be read or is not STAR.
    """
    # pandas takes half a second to import; commands that read no STAR file do not need it.
    import pandas
    import starfile

    check_file(path, expected)
    linecache.clearcache()  # starfile reads through it and does not notice that a file has changed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            blocks = starfile.read(path, always_dict=True, parse_as_string=_TEXTS)
        tables = {
            name: pandas.DataFrame([block]) if isinstance(block, dict) else block for name, block in blocks.items()
        }
    except Exception as error:  # the parser raises whatever its steps raise
        text = str(error).replace("\n", " ")[:200]
        if "Length mismatch" in text:
            raise InputError(
                f"{path}: rows have more or fewer cells than there are columns ({text}); an empty cell must be written "
                'as "": complete the rows'
            ) from error
        raise InputError(
            f"{path}: is not a STAR file ({type(error).__name__}: {text}); {expected}: copy it again"
        ) from error
    finally:
        linecache.clearcache()
    if not tables:
        raise InputError(f"{path}: holds no table; {expected}")
    # pytom-match-pick gives columns that RELION does not have, in some versions all columns, a prefix of its own.
    return {
        name: table.rename(columns={c: f"rln{c[3:]}" for c in map(str, table.columns) if c.startswith("ptm")})
        for name, table in tables.items()
    }


def particles_of(blocks: Blocks, path: pathlib.Path, coordinates: Sequence[str], names: Sequence[str]) -> Any:
    """The table of particles: the one with this name, or the only one with the coordinates and one of the names.

    Raises:
        InputError: there is none, or it lacks columns.
    """
    fitting = [
        b
        for b in blocks.values()
        if all(list(b.columns).count(c) == 1 for c in coordinates) and any(list(b.columns).count(n) == 1 for n in names)
    ]
    table = blocks.get("particles", fitting[0] if len(fitting) == 1 else None)
    if table is None or not any(table is f for f in fitting):
        present = ", ".join(map(str, (table if table is not None else next(iter(blocks.values()))).columns))
        raise InputError(
            f"{path}: its particles need the columns {', '.join((names[0], *coordinates))}, once each; it has "
            f"{present[:300]}"
        )
    return table


def numbers(table: Any, name: str) -> Float[NDArray[np.float64], " n"]:
    """The numbers of a column, NaN where a cell is not a finite number."""
    values = np.full(len(table), np.nan)
    for i, value in enumerate(table[name].tolist() if list(table.columns).count(name) == 1 else []):
        try:
            values[i] = float(value)
        except (TypeError, ValueError, OverflowError):
            continue
    values[~np.isfinite(values)] = np.nan
    return values


def column(table: Any, name: str, path: pathlib.Path) -> Float[NDArray[np.float64], " n"]:
    """Finite numbers of a column. Raises InputError with the row of a cell that is not one."""
    values = numbers(table, name)
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        once = list(table.columns).count(name) == 1
        value = table[name].tolist()[bad[0]] if once else "twice"
        raise InputError(
            f"{path}: {name} of particle {bad[0] + 1} is {str(value)[:40]!r}; expected a finite number, in one column"
        )
    return values


def columns(table: Any, names: Sequence[str], path: pathlib.Path) -> Float[NDArray[np.float64], "n k"]:
    """Several columns beside each other."""
    return np.stack([column(table, name, path) for name in names], axis=1)


def triple(
    table: Any, names: Sequence[str], path: pathlib.Path, note: Note
) -> Float[NDArray[np.float64], "n 3"] | None:
    """Three columns that belong together, or None where the table has none of them; a missing one counts as 0."""
    missing = [name for name in names if name not in table.columns]
    if len(missing) == len(names):
        return None
    if missing and len(table):
        note(f"{path}: has {', '.join(n for n in names if n not in missing)} without {', '.join(missing)}, taken as 0")
    return np.stack([np.zeros(len(table)) if name in missing else column(table, name, path) for name in names], axis=1)


def orientation_of(
    table: Any, names: Sequence[str], path: pathlib.Path, note: Note, outer: Rotation | None = None
) -> Float[NDArray[np.float64], "n 3 3"] | None:
    """The orientations that three columns of RELION's or Warp's Euler angles give, turned by `outer`.

    Rot, tilt and psi turn about z, the new y and the new z, and align the particle with the reference
    (`Euler_angles2matrix`); a pick's orientation is the inverse. A row with an angle that is not a number has none.
    """
    present = [name for name in names if name in table.columns]
    if not len(table) or (not present and outer is None):
        return None
    if present and len(present) < len(names):
        note(f"{path}: has {', '.join(present)} without {', '.join(n for n in names if n not in present)}, taken as 0")
    angles = np.stack([numbers(table, n) if n in present else np.zeros(len(table)) for n in names], axis=1)
    given = np.asarray(np.isfinite(angles).all(axis=1), np.bool_)
    if not given.all():
        note(f"{path}: {int((~given).sum())} particles have angles that are not numbers, so no orientation")
    rotation = Rotation.from_euler("ZYZ", np.where(given[:, None], angles, 0.0), degrees=True).inv()
    return orientations(rotation if outer is None else outer * rotation, given)


def euler_angles(matrices: Float[NDArray[np.float64], "n 3 3"]) -> Float[NDArray[np.float64], "n 3"]:
    """Rot, tilt and psi in degrees of orientations: the inverse of `orientation_of`."""
    if not len(matrices):
        return np.zeros((0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a tilt of 0, where rot and psi turn about one axis and psi becomes 0
        return Rotation.from_matrix(matrices).inv().as_euler("ZYZ", degrees=True)


def names_of(table: Any, name: str, path: pathlib.Path) -> list[str]:
    """Texts of a column. Raises InputError where one is missing."""
    names = table[name].tolist()
    missing = next((i for i, text in enumerate(names) if not isinstance(text, str) or not text), None)
    if missing is not None:
        raise InputError(f"{path}: particle {missing + 1} has no {name}; complete or remove the line")
    return names


def by_optics_group(
    blocks: Blocks, table: Any, name: str, path: pathlib.Path
) -> Float[NDArray[np.float64], " n"] | None:
    """The value for each particle from its own column or its optics group; None if neither has the column.

    Raises:
        InputError: groups differ, and a particle's group is not given.
    """
    if name in table.columns:
        return column(table, name, path)
    optics = blocks.get("optics")
    if optics is None or name not in optics.columns or not len(optics):
        return None
    values = column(optics, name, path)
    if len(set(values.tolist())) == 1:
        return np.full(len(table), values[0])
    group = "rlnOpticsGroup"
    if group not in optics.columns or group not in table.columns:
        raise InputError(
            f"{path}: its optics groups have several {name} ({sorted(set(values.tolist()))}): split the file"
        )
    value_of = dict(zip(column(optics, group, path).tolist(), values.tolist(), strict=True))
    groups = column(table, group, path).tolist()
    unknown = sorted({g for g in groups if g not in value_of})
    if unknown:
        raise InputError(f"{path}: its optics have no group {unknown[0]:g}; complete the table")
    return np.asarray([value_of[g] for g in groups], np.float64)
