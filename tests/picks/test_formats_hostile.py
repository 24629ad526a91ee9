"""Whatever a file of picks holds, reading it gives sound picks or an InputError, soon, and touches nothing.

`pytest tests/picks/test_formats_hostile.py --hypothesis-profile fuzz` looks longer.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile

import numpy as np
import pytest
from damage import FUZZ, JSON_LEAVES, TOKENS, damages, snapshot, spoil
from hypothesis import event, given
from hypothesis import strategies as st

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, read_text
from jaxcryo.picks.formats import (
    Geometries,
    TomogramGeometry,
    check_names,
    format_of,
    formats,
    read_picks,
    read_tomograms,
    write_picks,
)

TYPES = CZII_TYPES[:2]
GEOMETRIES = Geometries(
    default=TomogramGeometry(
        pixel_size_angstrom=1.5, unbinned_size_xyz=(4000, 4000, 1000), voxel_spacing_xyz_angstrom=(10, 10, 10)
    )
)
PICKS = {
    run: Picks(
        run=run,
        types=TYPES,
        xyz_angstrom=np.array([[10.5, 20, 30], [40, 50, 60], [70, 80, 90]]),
        type_index=np.array([0, 1, 1]),
        score=np.array([0.5, 0.25, 1]),
    )
    for run in ("TS_1", "TS_2")
}
TARGETS = {
    "kaggle": "a.csv",
    "csv": "a.csv",
    "copick": "c",
    "relion4": "a.star",
    "relion5": "a.star",
    "dynamo": "a.tbl",
    "napari": "n",
}


READ = {
    "copick": "c.json",
    "napari": "n.csv",
    "eman2": "TS_1_info.json",
    "imod": "TS_1_ribosome.mod",
    "coords": "TS_1_apo-ferritin.coords",
    "m": "apo-ferritin.star",
    "portal": "beta-galactosidase.ndjson",
}


def check_reading(folder: pathlib.Path, path: pathlib.Path, name: str | None) -> None:
    before = snapshot(folder)
    kind = None if name is None else format_of(name)
    try:
        found = read_picks(path, TYPES, GEOMETRIES, format_=kind)
    except InputError as error:
        assert len(str(error)) < 3000 + 2 * len(str(path))
        event("refused")
    else:
        event("read")
        check_names(found, "run", "")
        for run, picks in found.items():
            assert picks.run == run and np.isfinite(picks.xyz_angstrom).all()
            assert picks.score is None or np.isfinite(picks.score).all()
            assert ((picks.type_index >= 0) & (picks.type_index < len(TYPES))).all()
    assert snapshot(folder) == before


@pytest.mark.parametrize("name", TARGETS)
@FUZZ
@given(which=st.integers(0, 10), damage=damages(), sniff=st.booleans())
def test_damaged_files(
    name: str, which: int, damage: list[tuple[float, float, str | bytes | None]], sniff: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        files = write_picks(PICKS, folder / TARGETS[name], format_of(name), GEOMETRIES)
        file = files[which % len(files)]
        file.write_bytes(spoil(file.read_bytes(), damage))
        check_reading(folder, folder / TARGETS[name], None if sniff else name)


@pytest.mark.parametrize("name", formats())
@FUZZ
@given(data=st.one_of(st.binary(max_size=300), st.lists(TOKENS, max_size=30).map(lambda t: " ".join(t).encode())))
def test_files_of_anything(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        path = folder / (READ.get(name) or TARGETS[name])
        path.write_bytes(data)
        if name == "dynamo":
            path.with_suffix(".doc").write_bytes(data[::-1])
        check_reading(folder, path, name)


CELLS = st.one_of(TOKENS, st.floats().map(str), st.integers().map(str), st.text(max_size=8))


@pytest.mark.parametrize("name", ["kaggle", "csv", "napari"])
@FUZZ
@given(data=st.data())
def test_tables_of_any_cells(name: str, data: st.DataObject) -> None:
    columns = ["run", "experiment", "particle", "particle_type", "x", "y", "z", "score", "axis-0", "axis-1", "axis-2"]
    header = data.draw(st.lists(st.sampled_from(columns), min_size=1, max_size=8))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=4))
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / "a.csv"
        path.write_bytes("\n".join(",".join(r) for r in [header, *rows]).encode("utf-8", "replace"))
        check_reading(path.parent, path, name)


@pytest.mark.parametrize("centered", [True, False])
@FUZZ
@given(data=st.data())
def test_star_of_any_cells(centered: bool, data: st.DataObject) -> None:
    coordinates = [f"rlnCenteredCoordinate{a}Angst" if centered else f"rlnCoordinate{a}" for a in "XYZ"]
    others = ["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst", "rlnAngleRot", "rlnAutopickFigureOfMerit",
              "rlnClassNumber", "rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]  # fmt: skip
    header = [*coordinates, "rlnTomoName", *data.draw(st.lists(st.sampled_from(others), max_size=9))]
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=3))
    text = "data_particles\n\nloop_\n" + "".join(f"_{name}\n" for name in header)
    text += "\n".join(" ".join(f'"{c}"' if data.draw(st.booleans()) else c for c in row) for row in rows)
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / f"{TYPES[0].name}.star"
        path.write_bytes(text.encode("utf-8", "replace"))
        check_reading(path.parent, path, "relion5" if centered else "relion4")


JSON = st.recursive(
    JSON_LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["points", "location", "x", "y", "z", "score", "unit", "run_name", "pickable_object_name"]),
            inner,
            max_size=6,
        ),
    ),
    max_leaves=30,
)


@FUZZ
@given(points=st.one_of(JSON, st.lists(st.fixed_dictionaries({"location": JSON}), max_size=3)), run=JSON, unit=JSON)
def test_json_of_any_values(points: object, run: object, unit: object) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / f"{TYPES[0].name}.json"
        path.write_text(json.dumps({"points": points, "run_name": run, "unit": unit}))
        check_reading(path.parent, path, "copick")


@FUZZ
@given(damage=damages())
def test_damaged_tomograms_star(damage: list[tuple[float, float, str | bytes | None]]) -> None:
    text = (
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesPixelSize #2\n_rlnTomoTomogramBinning #3\n"
        "_rlnTomoSizeX #4\n_rlnTomoSizeY #5\n_rlnTomoSizeZ #6\n001 1.5 4.0 100 200 50\n002 1.5 4.0 100 200 50\n"
    )
    with tempfile.TemporaryDirectory() as place:
        path = pathlib.Path(place) / "tomograms.star"
        path.write_bytes(spoil(text.encode(), damage))
        try:
            read_tomograms(path, TomogramGeometry())
        except InputError:
            event("refused")


def test_files_that_are_none(tmp_path: pathlib.Path) -> None:
    """A device, a pipe and a link to nothing are refused without being read."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (pathlib.Path("/dev/zero"), tmp_path / "pipe", tmp_path / "link", tmp_path):
        for name in formats():
            with pytest.raises(InputError):
                read_picks(place, TYPES, GEOMETRIES, format_=format_of(name))
        with pytest.raises(InputError, match="cannot be read"):
            read_text(place, "expected text")


def test_files_that_are_too_large_or_too_deep(tmp_path: pathlib.Path) -> None:
    for name in formats():
        path = tmp_path / (READ.get(name) or f"a{pathlib.Path(TARGETS[name]).suffix}")
        with path.open("wb") as stream:
            stream.truncate(2**40)
        path.with_suffix(".doc").write_text("1 TS_1.mrc\n")
        with pytest.raises(InputError, match="bytes"):
            read_picks(path, TYPES, GEOMETRIES, format_=format_of(name))
    (tmp_path / "deep.json").write_text("[" * 10**6)
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "deep.json", "expected JSON")
