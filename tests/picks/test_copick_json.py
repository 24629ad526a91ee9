"""Picks come back as they were written; faulty files are refused with their place."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import (
    read_copick_folder,
    read_picks_folder,
    read_picks_json,
    write_copick_picks,
    write_kaggle_picks,
)
from jaxcryo.picks.formats.tables import read_submission, write_submission

RIBOSOME = CZII_TYPES[2]


def make_picks(run: str = "TS_1", *, scored: bool = True) -> Picks:
    rng = np.random.default_rng(0)
    type_index = np.sort(rng.integers(0, 5, 20))
    return Picks(
        run=run,
        types=CZII_TYPES,
        xyz_angstrom=rng.uniform(0, 6000, (20, 3)),
        type_index=type_index,
        score=rng.uniform(size=20) if scored else None,
    )


def assert_same(a: Picks, b: Picks, *, atol: float = 0.0) -> None:
    assert a.run == b.run and a.types == b.types
    np.testing.assert_allclose(a.xyz_angstrom, b.xyz_angstrom, rtol=0, atol=atol)
    np.testing.assert_array_equal(a.type_index, b.type_index)


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("write", [write_copick_picks, write_kaggle_picks])
def test_json_round_trip(tmp_path: pathlib.Path, write: Any, scored: bool) -> None:
    picks = make_picks(scored=scored)
    paths = write(picks, tmp_path)
    assert len(paths) == len(CZII_TYPES)
    again = read_copick_folder(tmp_path, CZII_TYPES)["TS_1"]
    assert_same(again, picks)
    if scored:
        assert again.score is not None and picks.score is not None
        np.testing.assert_array_equal(again.score, picks.score)
    else:
        assert again.score is None


def test_copick_file_is_as_copick_writes_it(tmp_path: pathlib.Path) -> None:
    paths = write_copick_picks(make_picks(), tmp_path)
    assert paths[2] == tmp_path / "ExperimentRuns" / "TS_1" / "Picks" / "jaxcryo_0_ribosome.json"
    content = json.loads(paths[2].read_text())
    point = content.pop("points")[0]
    assert content == {
        "pickable_object_name": "ribosome",
        "user_id": "jaxcryo",
        "session_id": "0",
        "run_name": "TS_1",
        "voxel_spacing": None,
        "unit": "angstrom",
        "trust_orientation": False,
    }
    assert set(point) == {"location", "transformation_", "instance_id", "score"}
    assert json.loads(paths[5].read_text())["points"] == []


def test_kaggle_file_names(tmp_path: pathlib.Path) -> None:
    assert write_kaggle_picks(make_picks(), tmp_path)[2].name == "ribosome.json"


@pytest.mark.parametrize("user_id", ["a_b", "", "a/b"])
def test_copick_names_without_underscore(tmp_path: pathlib.Path, user_id: str) -> None:
    with pytest.raises(InputError, match="without '_'"):
        write_copick_picks(make_picks(), tmp_path, user_id=user_id)


def test_a_type_without_a_file_has_no_picks(tmp_path: pathlib.Path) -> None:
    paths = write_kaggle_picks(make_picks(), tmp_path)
    paths[2].unlink()
    (paths[0].parent / "membrane.json").write_text("not read")
    again = read_picks_folder(paths[0].parent, "TS_1", CZII_TYPES)
    picks = make_picks()
    assert_same(again, picks.select(picks.type_index != 2))


def test_two_files_about_one_particle_or_none(tmp_path: pathlib.Path) -> None:
    folder = write_kaggle_picks(make_picks(), tmp_path)[0].parent
    write_copick_picks(make_picks(), tmp_path)
    with pytest.raises(InputError, match=r"jaxcryo_0_apo-ferritin\.json are all about apo-ferritin"):
        read_picks_folder(folder, "TS_1", CZII_TYPES)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="it holds no JSON file"):
        read_picks_folder(folder, "TS_1", CZII_TYPES)
    with pytest.raises(InputError, match="no picks of TS_9; the runs with picks are TS_1"):
        read_copick_folder(tmp_path, CZII_TYPES, ["TS_9"])
    with pytest.raises(InputError, match="has no ExperimentRuns"):
        read_copick_folder(tmp_path / "nowhere", CZII_TYPES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no list 'points'"),
        ("{}", "no list 'points'"),
        ('{"points": [], "unit": "nanometer"}', "unit is 'nanometer'"),
        ('{"points": [], "pickable_object_name": "actin"}', "holds picks of 'actin'; expected 'ribosome'"),
        ('{"points": [{"location": {"x": 1, "y": 2}}]}', "point 0 .*KeyError: 'z'"),
        ('{"points": [{"location": {"x": 1, "y": 2, "z": "high"}}]}', "point 0"),
        ('{"points": [{"location": {"x": 1, "y": 2, "z": NaN}}]}', "expected finite numbers"),
        ('{"points": [7]}', "point 0 is 7"),
    ],
)
def test_faulty_json(tmp_path: pathlib.Path, text: str, message: str) -> None:
    path = tmp_path / "ribosome.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_picks_json(path, RIBOSOME)


def test_unreadable_json(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_picks_json(tmp_path / "none.json", RIBOSOME)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="is not JSON"):
        read_picks_json(tmp_path / "binary.json", RIBOSOME)


def test_submission_round_trip(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "submission.csv"
    every = [make_picks("TS_1"), make_picks("TS_2")]
    write_submission(every, path)
    lines = path.read_text().splitlines()
    assert lines[0] == "id,experiment,particle_type,x,y,z"
    assert [line.split(",")[0] for line in lines[1:]] == [str(i) for i in range(40)]
    again = read_submission(path, CZII_TYPES)
    assert list(again) == ["TS_1", "TS_2"]
    for picks in every:
        assert_same(again[picks.run], picks, atol=5e-4)


def test_an_empty_submission(tmp_path: pathlib.Path) -> None:
    write_submission([], tmp_path / "a.csv")
    assert read_submission(tmp_path / "a.csv", CZII_TYPES) == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,TS_1,actin,1,2,3", r"line 3: unknown particle type 'actin'; the types are apo-ferritin"),
        ("0,TS_1,ribosome,1,two,3", "line 3: y is 'two'"),
        ("0,TS_1,ribosome,1,2", "line 3"),
        ("0,TS_1,ribosome,1,2,inf", "line 3: z is 'inf'"),
        ("0,,ribosome,1,2,3", "line 3: has no experiment"),
    ],
)
def test_faulty_rows_are_named(tmp_path: pathlib.Path, row: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,experiment,particle_type,x,y,z\n0,TS_1,ribosome,1,2,3\n{row}\n")
    with pytest.raises(InputError, match=message):
        read_submission(path, CZII_TYPES)


def test_faulty_tables(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_submission(tmp_path / "none.csv", CZII_TYPES)
    (tmp_path / "a.csv").write_text("experiment,particle_type,x,y\n")
    with pytest.raises(InputError, match="lacks z"):
        read_submission(tmp_path / "a.csv", CZII_TYPES)
    (tmp_path / "b.csv").write_text("")
    with pytest.raises(InputError, match="lacks experiment"):
        read_submission(tmp_path / "b.csv", CZII_TYPES)
