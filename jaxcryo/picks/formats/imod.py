"""Points of IMOD models (`.mod`): an object a particle, in voxels of the tomogram, read only.

The middle of the first voxel is at 0.5, 0.5, 0 (IMOD's model coordinates; its z counts sections, x and y edges). The
file is chunks of big-endian numbers (bio3d.colorado.edu/imod/doc/binspec.html), of which the points of contours and
the pixel size in MINX are read here. The package imodmodel reads more, and never ends on a file that is cut off.
"""

from __future__ import annotations

import pathlib
import struct

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.domain import Picks
from jaxcryo.errors import InputError
from jaxcryo.files import check_file
from jaxcryo.picks.formats.base import PickFormat, Rows, Types, head_of, picks_by_run
from jaxcryo.picks.geometry import Geometries, Note, differ
from jaxcryo.tomogram.volumes import tomogram_name

_EXPECTED = "expected an IMOD model"
_MODEL_HEADER, _OBJECT_HEADER, _CONTOUR_HEADER, _MESH_HEADER = 232, 176, 16, 16
_LARGEST = 2**28
_FIRST_VOXEL = (0.5, 0.5, 0.0)
Points = Float[NDArray[np.float64], "_ 3"]


def _read(path: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> dict[str, Picks]:
    files = sorted(f for f in path.iterdir() if _recognizes(f)) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: has no model (.mod); {_EXPECTED}")
    return picks_by_run(types, [_rows(file, types, geometries, note) for file in files], note)


def _rows(file: pathlib.Path, types: Types, geometries: Geometries, note: Note) -> Rows:
    check_file(file, _EXPECTED, limit=_LARGEST)
    try:
        objects, pixel_size = _objects(file.read_bytes())
    except (struct.error, ValueError) as error:
        raise InputError(f"{file}: is damaged or cut off ({error}); {_EXPECTED}: copy it again") from error
    kinds = _kinds(file, objects, types, note)
    run = _run(file, types)
    points = np.concatenate([np.zeros((0, 3)), *(own for _, own in objects)]) - _FIRST_VOXEL
    index = np.concatenate(
        [np.zeros(0, np.int64), *(np.full(len(o), k) for (_, o), k in zip(objects, kinds, strict=True))]
    )
    keep = index >= 0
    points, index = points[keep], index[keep].astype(np.int64)
    if not np.isfinite(points).all():
        raise InputError(f"{file}: has points that are not finite; {_EXPECTED}")
    geometry = geometries.of(run)
    if geometry.voxel_spacing_xyz_angstrom is None and pixel_size is not None:
        note(f"{file}: its own voxel spacing of {pixel_size:g} Å was used; pass --data or --voxel-spacing otherwise")
        spacing = np.full(3, pixel_size)
    else:
        spacing = geometry.voxel_spacing(run)
        if pixel_size is not None and differ(pixel_size, float(spacing[0])):
            note(
                f"{file}: was drawn on voxels of {pixel_size:g} Å, and the tomogram has {spacing[0]:g} Å; its points "
                f"were read in voxels of {pixel_size:g} Å"
            )
            spacing = np.full(3, pixel_size)
    return Rows(where=str(file), runs=[run] * len(points), xyz_angstrom=points * spacing, type_index=index)


def _objects(data: bytes) -> tuple[list[tuple[str, Points]], float | None]:
    """The name and the points of each object, and the voxel spacing where the model has one."""
    if data[:4] != b"IMOD":
        raise ValueError("it does not begin with IMOD")
    objects: list[tuple[str, list[Points]]] = []
    at, pixel_size = 8 + _MODEL_HEADER, None
    while data[at : at + 4] != b"IEOF":
        tag, at = data[at : at + 4], at + 4
        if tag == b"OBJT":
            name = data[at : at + 64].split(b"\0")[0].decode("utf-8", "replace").strip()
            objects.append((name, []))
            at += _OBJECT_HEADER
        elif tag == b"CONT":
            (count,) = struct.unpack_from(">i", data, at)
            at += _CONTOUR_HEADER
            if count < 0 or not objects or at + 12 * count > len(data):
                raise ValueError("a contour is longer than the file")
            objects[-1][1].append(np.frombuffer(data, ">f4", 3 * count, at).reshape(-1, 3).astype(np.float64))
            at += 12 * count
        elif tag == b"MESH":
            vertices, indices = struct.unpack_from(">ii", data, at)
            at += _MESH_HEADER + 12 * max(vertices, 0) + 4 * max(indices, 0)
        else:
            (size,) = struct.unpack_from(">i", data, at)
            if size < 0 or len(tag) != 4:
                raise ValueError("it ends before its end mark")
            if tag == b"MINX":
                x, y, z = struct.unpack_from(">3f", data, at + 4 + 36)
                pixel_size = float(x) if x > 0 and abs(x - y) + abs(x - z) < 0.01 * x and x != 1 else None
            at += 4 + size
    return [(name, np.concatenate([np.zeros((0, 3)), *parts])) for name, parts in objects], pixel_size


def _kinds(file: pathlib.Path, objects: list[tuple[str, Points]], types: Types, note: Note) -> list[int]:
    """The type's index of each object: by its name, the file's name, or because there is only one; -1 for others."""
    index_of = {t.name: i for i, t in enumerate(types)}
    named = [index_of.get(name, -1) for name, _ in objects]
    if any(kind >= 0 for kind in named):
        others = [
            name or "an unnamed object"
            for (name, own), kind in zip(objects, named, strict=True)
            if kind < 0 and len(own)
        ]
        if others:
            note(f"{file}: skipped {', '.join(others)}")
        return named
    by_file = next((i for name, i in index_of.items() if file.stem == name or file.stem.endswith(f"_{name}")), None)
    if by_file is None and len(types) != 1:
        raise InputError(
            f"{file}: its objects are {', '.join(name or 'unnamed' for name, _ in objects) or 'none'}; name them, or "
            f"the file <run>_<particle>.mod, after {', '.join(index_of)}, or pass --particles with one particle"
        )
    return [by_file or 0] * len(objects)


def _run(file: pathlib.Path, types: Types) -> str:
    stem = next((file.stem.removesuffix(f"_{t.name}") for t in types if file.stem.endswith(f"_{t.name}")), file.stem)
    return tomogram_name(pathlib.Path(stem))


def _recognizes(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".mod" and head_of(path, 4) == b"IMOD"


IMOD = PickFormat(name="imod", title="points of an IMOD model", recognizes=_recognizes, read=_read)
