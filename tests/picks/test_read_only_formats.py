"""Formats that are read only: EMAN2's boxes, IMOD's points, lists of coordinates."""

from __future__ import annotations

import json
import pathlib
import struct
import tempfile

import numpy as np
import pytest
from damage import FUZZ, damages, spoil
from hypothesis import given

from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.picks.formats import Geometries, TomogramGeometry, detect, format_for, format_of, read_picks, write_picks

TYPES = CZII_TYPES[:3]
GEOMETRY = TomogramGeometry(voxel_spacing_xyz_angstrom=(10, 10, 10), shape_xyz=(61, 40, 20))
GEOMETRIES = Geometries(by_run={"TS_1": GEOMETRY})


def eman2(path: pathlib.Path, boxes: object, **further: object) -> pathlib.Path:
    names = {"0": {"name": "ribosome", "boxsize": 32}, "1": {"name": "dust", "boxsize": 8}}
    path.write_text(json.dumps({"boxes_3d": boxes, "class_list": names, **further}))
    return path


def test_boxes_of_eman2(tmp_path: pathlib.Path) -> None:
    """With apix_unbin they count unbinned pixels from voxel n // 2, as e2spt_boxer.py adds it back."""
    boxes = [[0, 0, 0, "tm", 0.7, 0], [10, -20, 4, "tm", 0.5, 0], [1, 1, 1, "manual", 0.0, 1]]
    file = eman2(tmp_path / "TS_1_info.json", boxes, apix_unbin=2.0)
    assert detect(file).name == "eman2" and detect(tmp_path).name == "eman2"
    notes: list[str] = []
    picks = read_picks(file, TYPES, GEOMETRIES, note=notes.append)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[300, 200, 100], [320, 160, 108]]
    assert picks.type_index.tolist() == [2, 2] and picks.score is not None and picks.score.tolist() == [0.7, 0.5]
    assert any("1 boxes of other particles" in n for n in notes)
    with pytest.raises(InputError, match=r"middle of the tomogram.* --data"):
        read_picks(file, TYPES, Geometries(default=TomogramGeometry(voxel_spacing_xyz_angstrom=(10, 10, 10))))


def test_boxes_of_an_older_eman2(tmp_path: pathlib.Path) -> None:
    file = eman2(tmp_path / "TS_1_info.json", [[3, 4, 5, "manual"]])
    picks = read_picks(file, TYPES, GEOMETRIES)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[30, 40, 50]] and picks.score is None
    with pytest.raises(InputError, match="its particles are ribosome, dust; the types are apo-ferritin"):
        read_picks(file, TYPES[:1], GEOMETRIES)
    for bad in ([[1, 2]], ["x"], [[1, 2, "three", "m", 0, 0]], 7):
        with pytest.raises(InputError):
            read_picks(eman2(file, bad), TYPES, GEOMETRIES)


def imod(*objects: tuple[str, list[tuple[float, float, float]]], spacing: float | None = None) -> bytes:
    """A model as 3dmod writes it, after bio3d.colorado.edu/imod/doc/binspec.html."""
    data = b"IMODV1.2" + b"\0" * 128 + struct.pack(">4i", 61, 40, 20, len(objects)) + b"\0" * 88
    for name, points in objects:
        data += b"OBJT" + name.encode().ljust(64, b"\0") + b"\0" * 64 + struct.pack(">i", 1) + b"\0" * 44
        data += b"CONT" + struct.pack(">4i", len(points), 0, 0, 0) + np.array(points, ">f4").tobytes()
        data += b"IMAT" + struct.pack(">i", 12) + b"\0" * 12
    if spacing is not None:
        data += b"MINX" + struct.pack(">i", 72) + struct.pack(">18f", *[0] * 9, *[spacing] * 3, *[0] * 6)
    return data + b"IEOF"


def test_points_of_imod(tmp_path: pathlib.Path) -> None:
    """IMOD's first voxel has its middle at 0.5, 0.5, 0."""
    file = tmp_path / "TS_1.mod"
    file.write_bytes(imod(("ribosome", [(0.5, 0.5, 0), (3.5, 4.5, 5)]), ("dust", [(1, 1, 1)])))
    assert detect(file).name == "imod"
    notes: list[str] = []
    picks = read_picks(file, TYPES, GEOMETRIES, note=notes.append)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[0, 0, 0], [30, 40, 50]] and picks.type_index.tolist() == [2, 2]
    assert notes == [f"{file}: skipped dust"]


def test_imods_own_voxel_size(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "TS_1_ribosome.mod"
    file.write_bytes(imod(("", [(3.5, 4.5, 5)]), spacing=20))
    notes: list[str] = []
    for geometries in (None, GEOMETRIES):
        picks = read_picks(file, TYPES, geometries, note=notes.append)["TS_1"]
        assert picks.xyz_angstrom.tolist() == [[60, 80, 100]] and picks.type_index.tolist() == [2]
    assert len(notes) == 2 and "10 Å" in notes[1]
    with pytest.raises(InputError, match=r"<run>_<particle>\.mod"):
        read_picks(file.rename(tmp_path / "TS_1.mod"), TYPES)


@FUZZ
@given(damage=damages())
def test_damaged_models_end_in_a_message(damage: list[tuple[float, float, str | bytes | None]]) -> None:
    """Also one that is cut off, on which imodmodel 0.1 loops for ever."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "TS_1_ribosome.mod"
        path.write_bytes(spoil(imod(("ribosome", [(1, 2, 3), (4, 5, 6)]), spacing=10), damage))
        try:
            found = read_picks(path, TYPES, GEOMETRIES, format_=format_of("imod"))
        except InputError:
            return
        assert all(np.isfinite(p.xyz_angstrom).all() for p in found.values())


@pytest.mark.parametrize(
    ("name", "types"),
    [("TS_1.coords", TYPES[2:]), ("TS_1_ribosome.coords", TYPES), ("ribosome/TS_1.xyz", TYPES)],
)
def test_lists_of_coordinates(tmp_path: pathlib.Path, name: str, types: tuple) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("# x y z\n3 4 5\n1.5, 2, 0\n\n")
    assert detect(file).name == "coords"
    picks = read_picks(file, types, GEOMETRIES)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[30, 40, 50], [15, 20, 0]]
    assert picks.types[picks.type_index[0]].name == "ribosome"
    file.write_text("1 2\n")
    with pytest.raises(InputError, match="line 1: has 2 columns"):
        read_picks(file, types, GEOMETRIES)


def test_a_list_without_a_particle(tmp_path: pathlib.Path) -> None:
    (tmp_path / "TS_1.coords").write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"<run>_<particle>\.coords"):
        read_picks(tmp_path / "TS_1.coords", TYPES, GEOMETRIES)


@pytest.mark.parametrize("name", ["eman2", "imod", "coords", "m", "portal"])
def test_they_are_not_written(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(InputError, match="is only read; expected one of csv"):
        format_for(tmp_path / "a", name)
    with pytest.raises(InputError, match="is only read"):
        write_picks({}, tmp_path / "a", format_of(name))
