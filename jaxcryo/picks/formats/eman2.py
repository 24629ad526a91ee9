"""EMAN2's boxes in a tomogram: `boxes_3d` of `info/<tomogram>_info.json`, read only.

A box is x, y, z, how it was picked, a score and a class, which `class_list` names. With `apix_unbin` in the file,
boxes count unbinned pixels from the middle voxel of the tomogram; without it, voxels of the tomogram from 0
(e2spt_boxer.py, "the new (2018-09) metadata standard").
"""

from __future__ import annotations

import pathlib
import reprlib
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json
from jaxcryo.picks.formats.base import PickFormat, Rows, Types, picks_by_run
from jaxcryo.picks.geometry import Geometries, Note

_SUFFIX = "_info.json"
_EXPECTED = "expected an info file of EMAN2 with boxes_3d"


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    files = sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: has no *{_SUFFIX}; {_EXPECTED}")
    tables = [_rows(file, types, geometries, note) for file in files]
    if path.is_dir():
        without = [file.name for file, table in zip(files, tables, strict=True) if not len(table.runs)]
        if without:
            note(f"{path}: no boxes of these particles in {reprlib.repr(without)}")
    return picks_by_run(types, tables, note)


def _rows(file: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> Rows:
    content = read_json(file, _EXPECTED)
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds no object; {_EXPECTED}")
    boxes, run = content.get("boxes_3d") or [], file.name.removesuffix(_SUFFIX).removesuffix("__bin4")
    if not isinstance(boxes, list):
        raise InputError(f"{file}: its boxes_3d is not a list; {_EXPECTED}")
    kind_of = _kinds(content.get("class_list"), types, file)
    xyz, kinds, scores = [], [], []
    for i, box in enumerate(boxes, 1):
        try:
            position, rest = [float(v) for v in box[:3]], [*box[4:6], *[0] * (6 - max(len(box), 4))]
            kind, score = int(rest[1]), float(rest[0])
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(
                f"{file}: box {i} is {reprlib.repr(box)}; expected x, y, z, method, score, class"
            ) from error
        if not np.isfinite(position).all() or len(position) != 3:
            raise InputError(f"{file}: box {i} is at {position}; expected three finite numbers")
        if kind in kind_of:
            xyz.append(position)
            kinds.append(kind_of[kind])
            scores.append(score)
    if len(xyz) < len(boxes):
        note(f"{file}: skipped {len(boxes) - len(xyz)} boxes of other particles")
    positions = np.asarray(xyz, np.float64).reshape(-1, 3)
    return Rows(
        where=str(file),
        runs=[run] * len(xyz),
        xyz_angstrom=_angstrom(positions, run, content.get("apix_unbin"), file, geometries) if len(xyz) else positions,
        type_index=np.asarray(kinds, np.int64),
        score=np.asarray(scores, np.float64) if any(scores) else None,  # boxes by hand all score 0
    )


def _angstrom(
    boxes: Float[NDArray[np.float64], "n 3"], run: str, pixel_size: Any, file: pathlib.Path, geometries: Geometries
) -> Float[NDArray[np.float64], "n 3"]:
    geometry = geometries.of(run)
    if pixel_size is None:
        return boxes * geometry.voxel_spacing(run)
    if isinstance(pixel_size, bool) or not isinstance(pixel_size, int | float) or not 1e-3 <= pixel_size <= 1e4:
        raise InputError(f"{file}: its apix_unbin is {reprlib.repr(pixel_size)}; expected the pixel size in ångströms")
    if geometry.shape_xyz is None:
        raise InputError(
            f"{file}: its boxes are counted from the middle of the tomogram, and the size of {run} is not known; pass "
            "--data DIR with the tomograms"
        )
    middle = np.asarray(geometry.shape_xyz) // 2 * geometry.voxel_spacing(run)
    return boxes * float(pixel_size) + middle


def _kinds(class_list: Any, types: Types, file: pathlib.Path) -> dict[int, int]:
    """The index of the type for each of EMAN2's classes: by name, or because there is only one of each."""
    entries = class_list if isinstance(class_list, dict) else {}
    names = {}
    for key, entry in entries.items():
        name = entry.get("name") if isinstance(entry, dict) else entry
        if key.isdecimal() and len(key) < 9 and isinstance(name, str):
            names[int(key)] = name
    index_of = {t.name: i for i, t in enumerate(types)}
    found = {number: index_of[name] for number, name in names.items() if name in index_of}
    if not found and len(types) == 1 and len(names) <= 1:
        return {next(iter(names), 0): 0}
    if not found:
        raise InputError(
            f"{file}: its particles are {', '.join(names.values()) or 'not named'}; the types are "
            f"{', '.join(index_of)}: rename the set in EMAN2, or pass --particles with one particle"
        )
    return found


EMAN2 = PickFormat(
    name="eman2",
    title="boxes of EMAN2",
    recognizes=lambda path: path.is_file() and path.name.endswith(_SUFFIX),
    read=_read,
)
