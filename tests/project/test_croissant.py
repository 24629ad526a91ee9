"""Croissant manifests in copick's layout: their runs, tomograms and picks, on this machine and on a server."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import servers

from jaxcryo.cli.inputs import check_truth, find_source, known_picks, listed_picks
from jaxcryo.cli.options import InputOptions, TruthOptions
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.project.croissant import open_manifest
from jaxcryo.stores.address import Address

TURN = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
TABLES = {
    "runs": "name,portal_run_id,split\nTS_1,11,train\nTS_2,12,test\n",
    "tomograms": "run,voxel_size,tomo_type,url,portal_tomo_type,portal_tomogram_id\n"
    "TS_1,10.0,denoised,ExperimentRuns/TS_1/VoxelSpacing10.000/denoised.zarr,,\n"
    "TS_1,10.0,wbp,ExperimentRuns/TS_1/VoxelSpacing10.000/wbp.zarr,,\n"
    "TS_2,10.0,denoised,s3://portal/10446/TS_2/denoised.zarr,,\n",
    "picks": "run,user_id,session_id,object_name,url,sha256,voxel_size\n"
    "TS_1,portal,7,cytosolic-ribosome,ExperimentRuns/TS_1/points.ndjson,,10.0\n"
    "TS_1,ann,1,apo-ferritin,ExperimentRuns/TS_1/Picks/ann_1_apo-ferritin.json,,\n"
    "TS_1,jaxcryo,0,apo-ferritin,ExperimentRuns/TS_1/Picks/jaxcryo_0_apo-ferritin.json,,\n"
    "TS_2,portal,7,membrane,ExperimentRuns/TS_2/points.ndjson,,10.0\n",
}


def write_manifest(root: pathlib.Path, base: str | None = None, **tables: str) -> str:
    """A project of two runs, with its manifest; the manifest's path."""
    folder = root / "Croissant"
    folder.mkdir(parents=True)
    content = {"@type": "sc:Dataset", "recordSet": [], "distribution": []}
    (folder / "metadata.json").write_text(json.dumps(content | ({} if base is None else {"copick:baseUrl": base})))
    for name, text in (TABLES | tables).items():
        (folder / f"{name}.csv").write_text(text)
    run = root / "ExperimentRuns" / "TS_1"
    (run / "Picks").mkdir(parents=True)
    line = {"type": "orientedPoint", "location": {"x": 1, "y": 2, "z": 3}, "xyz_rotation_matrix": TURN}
    (run / "points.ndjson").write_text(json.dumps(line) + "\n")
    points = [{"location": {"x": 50.0, "y": 60.0, "z": 70.0}}]
    plain = {"pickable_object_name": "apo-ferritin", "user_id": "ann", "unit": "angstrom", "points": points}
    (run / "Picks" / "ann_1_apo-ferritin.json").write_text(json.dumps(plain))
    return str(folder / "metadata.json")


def check_picks(manifest: str, truth: TruthOptions = TruthOptions()) -> None:
    source = find_source(manifest, None, InputOptions())
    found = known_picks(source, CZII_TYPES, truth)
    assert list(found) == ["TS_1"]
    picks = found["TS_1"]
    assert [CZII_TYPES[i].name for i in picks.type_index] == ["apo-ferritin", "ribosome"]
    assert picks.xyz_angstrom.tolist() == [[50, 60, 70], [10, 20, 30]]
    assert picks.orientation is not None
    np.testing.assert_array_equal(picks.orientation, [np.eye(3), TURN])


def test_a_manifest_on_this_machine(tmp_path: pathlib.Path) -> None:
    manifest = write_manifest(tmp_path)
    source = find_source(manifest, None, InputOptions())
    assert source.place == manifest
    assert [(r.name, r.volume_path) for r in source.runs] == [
        ("TS_1", tmp_path / "ExperimentRuns/TS_1/VoxelSpacing10.000/denoised.zarr"),
        ("TS_2", Address("s3://portal/10446/TS_2/denoised.zarr")),
    ]
    (wbp,) = find_source(manifest, None, InputOptions(tomogram_type="wbp"), names=["TS_1"]).runs
    assert str(wbp.volume_path).endswith("wbp.zarr")
    check_picks(manifest)


def test_a_manifest_named_from_its_own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pathlib.Path(write_manifest(tmp_path)).parent)
    check_picks("metadata.json")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_project_that_lies_elsewhere(tmp_path: pathlib.Path, scheme: str) -> None:
    write_manifest(tmp_path / "data")
    check_picks(write_manifest(tmp_path / "moved", f"{scheme}{tmp_path / 'data'}/"))


def test_tables_of_old_line_ends(tmp_path: pathlib.Path) -> None:
    check_picks(write_manifest(tmp_path, **{name: text.replace("\n", "\r") for name, text in TABLES.items()}))


def test_a_manifest_on_a_server(tmp_path: pathlib.Path) -> None:
    write_manifest(tmp_path)
    with servers.web_server(tmp_path) as served:
        manifest = f"{served.url}/Croissant/metadata.json"
        run = find_source(manifest, None, InputOptions(), names=["TS_1"]).runs[0]
        assert str(run.volume_path).startswith(f"{served.url}/ExperimentRuns/TS_1/")
        check_picks(manifest)


def test_picks_of_a_user_and_a_session(tmp_path: pathlib.Path) -> None:
    twice = TABLES["picks"] + "TS_1,bob,2,apo-ferritin,nowhere.json,,\n"
    manifest = write_manifest(tmp_path, picks=twice)
    source = find_source(manifest, None, InputOptions())
    for truth in (TruthOptions(picks_user="ann"), TruthOptions(picks_session="1")):
        check_truth(truth, None, data=manifest)
        (picks,) = known_picks(source, CZII_TYPES, truth).values()
        assert picks.xyz_angstrom.tolist() == [[50, 60, 70]]
    with pytest.raises(InputError, match=r"ann in 1, bob in 2; .*--picks-user"):
        listed_picks(open_manifest(manifest), ["TS_1"], CZII_TYPES, TruthOptions())


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"runs": "run\nTS_1\n"}, r"runs\.csv: has no column name"),
        ({"runs": f"name\nTS_1{'1' * 200_000}\n"}, r"runs\.csv: is not CSV"),
        ({"runs": "name\n../TS_1\n"}, r"'\.\./TS_1'"),
        ({"tomograms": "run,voxel_size,tomo_type,url\nTS_1,ten,wbp,a.zarr\n"}, "'ten'"),
        ({"picks": "run,user_id,session_id,object_name,url\nTS_1,ann,1,ribosome,\n"}, "line 2 has no url"),
        ({"picks": "run,user_id,session_id,object_name,url\nTS_1,ann,1,ribosome,ftp://a/b\n"}, "ftp://"),
    ],
)
def test_tables_that_are_not_copicks(tmp_path: pathlib.Path, tables: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_manifest(write_manifest(tmp_path, **tables))


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"recordSet": [], "copick:baseUrl": 3}'])
def test_what_is_no_manifest(tmp_path: pathlib.Path, content: str) -> None:
    manifest = pathlib.Path(write_manifest(tmp_path))
    manifest.write_text(content)
    with pytest.raises(InputError, match=r"metadata\.json"):
        open_manifest(str(manifest))


def test_points_in_voxels_of_no_known_size(tmp_path: pathlib.Path) -> None:
    manifest = write_manifest(tmp_path, picks=TABLES["picks"].replace("points.ndjson,,10.0", "points.ndjson,,"))
    with pytest.raises(InputError, match=r"points\.ndjson"):
        listed_picks(open_manifest(manifest), ["TS_1"], CZII_TYPES, TruthOptions())
