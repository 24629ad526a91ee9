"""Voxel sizes that a tomogram can have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxcryo.errors import InputError
from jaxcryo.stores.address import Location

GIVE_SPACING = "pass the true spacing with --voxel-spacing"
_SMALLEST_ANGSTROM = 1.0
_LARGEST_ANGSTROM = 100.0
_NO_CUBE = 1.05
_UNEQUAL = 1.01
"""Voxels are cubes except for rounding; entries that differ by more were usually written for another binning."""


def check_spacing(
    path: Location,
    source: str,
    spacing_zyx: tuple[float, float, float],
    *,
    shape_zyx: Sequence[int] = (),
    lengths_zyx: Sequence[float] = (),
) -> list[str]:
    """A sentence on voxels that are not quite cubes. `source` says where the spacing comes from.

    Raises:
        InputError: they are clearly not cubes, or of an impossible size. If the box's lengths over its shape would give
            cubes, the message says so.
    """
    sizes = " × ".join(f"{s:g}" for s in spacing_zyx[::-1]) + " Å (x, y, z)"
    if not all(math.isfinite(s) and s > 0 for s in spacing_zyx):
        raise InputError(f"{path}: {source} gives voxels of {sizes}; {GIVE_SPACING}")
    if all(abs(s - 1) < 1e-6 for s in spacing_zyx):
        raise InputError(f"{path}: {source} gives a voxel size of 1 Å, which is a writer's default; {GIVE_SPACING}")
    least, most = min(spacing_zyx), max(spacing_zyx)
    if most > _NO_CUBE * least or least < _SMALLEST_ANGSTROM or most > _LARGEST_ANGSTROM:
        hint = ""
        own = [length / n for length, n in zip(lengths_zyx, shape_zyx, strict=True)]
        if own and max(own) <= _UNEQUAL * min(own) and min(own) > _SMALLEST_ANGSTROM and max(own) < _LARGEST_ANGSTROM:
            hint = f" (the box divided by its {' × '.join(map(str, shape_zyx[::-1]))} voxels gives {own[0]:.4g} Å)"
        raise InputError(
            f"{path}: {source} gives voxels of {sizes}; expected cubes of {_SMALLEST_ANGSTROM:g} to "
            f"{_LARGEST_ANGSTROM:g} Å: {GIVE_SPACING}{hint}"
        )
    return [f"{source} gives voxels of {sizes}; if they are cubes, {GIVE_SPACING}"] if most > _UNEQUAL * least else []
