"""Points of the CryoET Data Portal (`.ndjson`): a JSON object a line, in voxels of the tomogram from 0, read only.

A point is `{"type": "orientedPoint", "location": {"x": …, "y": …, "z": …}, "xyz_rotation_matrix": [[…], …]}`. As the
portal lays files out, the run is the folder above `Reconstructions`, and the particle is the file's name before its
version.
"""

from __future__ import annotations

import json
import pathlib
import re
import reprlib
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_text
from jaxcryo.picks.copick_json import orientation_of
from jaxcryo.picks.formats.base import PickFormat, Rows, Types, picks_by_run
from jaxcryo.picks.geometry import Geometries, Note, TomogramGeometry

OTHER_NAMES = {
    "cytosolic-ribosome": "ribosome",
    "ferritin-complex": "apo-ferritin",
    "virus-like-capsid": "virus-like-particle",
}
"""The portal's names come from the Gene Ontology or UniProt, ours from the challenge."""

_SUFFIX = ".ndjson"
_EXPECTED = "expected points of the CryoET Data Portal, a JSON object a line"
_NAME = re.compile(r"(?P<particle>.+?)(?:-\d+(?:\.\d+)?)?(?:_(?:oriented|instance)?point)?", re.IGNORECASE)
_SPACING = re.compile(r"VoxelSpacing(\d{1,6}(?:\.\d{1,6})?)")
_ROUNDING = 1e-3
"""Å, by which a folder's name may be rounded."""

Points = tuple[Float[NDArray[np.float64], "n 3"], Float[NDArray[np.float64], "n 3 3"] | None]


def points_of(text: str, where: str, note: Note) -> Points:
    """The positions of a file in voxels (x, y, z), and their rotations where they have any.

    Raises:
        InputError: a line is not a point, or a number is not finite.
    """
    positions, rotations = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            point: Any = json.loads(line)
            positions.append([float(point["location"][axis]) for axis in "xyz"])
            rotation = np.asarray(point.get("xyz_rotation_matrix") or np.eye(3), np.float64).reshape(3, 3)
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
            raise InputError(f"{where}: line {number} is {reprlib.repr(line)}; {_EXPECTED}") from error
        rotations.append(rotation)
    xyz = np.asarray(positions, np.float64).reshape(-1, 3)
    bad = np.flatnonzero(~np.isfinite(xyz).all(axis=1))
    if len(bad):
        raise InputError(f"{where}: point {bad[0] + 1} is at {xyz[bad[0]].tolist()}; expected finite numbers")
    return xyz, orientation_of(np.asarray(rotations, np.float64).reshape(-1, 3, 3), where, note)


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    files = sorted(path.rglob(f"*{_SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: has no *{_SUFFIX}; {_EXPECTED}")
    tables, others = [], []
    for file in files:
        kind = _kind(file, types) if path.is_dir() or len(types) > 1 else 0
        if kind is None:
            others.append(file.name)
        else:
            tables.append(_rows(file, kind, geometries, note))
    if not tables:
        raise InputError(
            f"{path}: its particles are {', '.join(others[:20])}; the types are {', '.join(t.name for t in types)}: "
            "rename a file, or pass --particles"
        )
    if others:
        note(f"{path}: skipped {', '.join(others[:20])}, which are none of the particle types")
    return picks_by_run(types, tables, note)


def _kind(file: pathlib.Path, types: Types) -> int | None:
    match = _NAME.fullmatch(file.name.removesuffix(_SUFFIX))
    return None if match is None else portal_type(match["particle"], types)


def _rows(file: pathlib.Path, kind: int, geometries: Geometries, note: Note) -> Rows:
    voxels, orientation = points_of(read_text(file, _EXPECTED), str(file), note)
    parts = file.absolute().parts
    above = parts.index("Reconstructions") - 1 if "Reconstructions" in parts[1:] else len(parts) - 2
    run = parts[above]
    named = next((m for part in reversed(parts) if (m := _SPACING.fullmatch(part))), None)
    if named is None or geometries.default.voxel_spacing_xyz_angstrom is not None:
        scale = geometries.of(run).voxel_spacing(run)
    else:
        scale = _spacing_of_folder(file, named[1], geometries.of(run), note)
    return Rows(
        where=str(file),
        runs=[run] * len(voxels),
        xyz_angstrom=voxels * scale,
        type_index=np.full(len(voxels), kind, np.int64),
        orientation=orientation,
    )


def _spacing_of_folder(
    file: pathlib.Path, named: str, tomogram: TomogramGeometry, note: Note
) -> Float[NDArray[np.float64], "3"]:
    """The voxel spacing of the file's own folder, whichever tomogram of the run is given."""
    folder, known = np.full(3, float(named)), tomogram.voxel_spacing_xyz_angstrom
    if known is not None and np.abs(folder - known).max() <= _ROUNDING:
        return np.asarray(known, np.float64)
    beside = "" if known is None else f", not the tomogram's of {' × '.join(f'{v:.3f}' for v in known)} Å"
    note(f"{file}: its folder's voxel spacing of {named} Å was used{beside}; pass --voxel-spacing otherwise")
    return folder


def plain_name(name: str) -> str:
    """Lower case, words joined by hyphens, as copick writes the portal's names."""
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


def portal_type(name: str, types: tuple[ParticleType, ...]) -> int | None:
    """The index of the type that the portal's name means; None if it is none of them."""
    own = plain_name(name)
    names = [plain_name(t.name) for t in types]
    return next((names.index(n) for n in (own, OTHER_NAMES.get(own)) if n in names), None)


PORTAL = PickFormat(
    name="portal",
    title="points of the CryoET Data Portal",
    recognizes=lambda path: path.is_file() and path.name.endswith(_SUFFIX),
    read=_read,
)
