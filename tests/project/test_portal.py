"""Datasets of the CryoET Data Portal: the tomogram and the picks that are meant, asked of a double of its API."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import servers
from portal_double import Double, portal_double

from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.inputs import check_truth, find_source, known_picks
from jaxcryo.cli.options import InputOptions, TruthOptions
from jaxcryo.cli.score import main as score
from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.picks.formats import Geometries, TomogramGeometry, detect, read_picks
from jaxcryo.picks.formats.portal import OTHER_NAMES, portal_type
from jaxcryo.project import portal as portal_module
from jaxcryo.project.portal import open_portal, portal_runs
from jaxcryo.project.portal_picks import portal_picks
from jaxcryo.stores.address import Address

TURN = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
RUNS = {11: "TS_1", 12: "TS_2"}


def ndjson(points: list[tuple[float, float, float]], rotation: Any = None) -> str:
    more = {} if rotation is None else {"xyz_rotation_matrix": rotation}
    return "".join(
        json.dumps({"type": "point", "location": dict(zip("xyz", p, strict=True)), **more}) + "\n" for p in points
    )


def filled(double: Double) -> dict[str, str]:
    """Two runs of dataset 10446; the files of points by their place."""
    files = {}
    runs = [{"id": i, "name": n, "datasetId": 10446} for i, n in RUNS.items()]
    double.records["runs"] = runs
    for name in ("tomograms", "tomogramVoxelSpacings", "annotations", "annotationShapes", "annotationFiles"):
        double.records[name] = []
    for run in runs:
        spacing = {"id": run["id"] + 100, "run": run, "voxelSpacing": 10.0}
        double.records["tomogramVoxelSpacings"].append(spacing)
        for number, (processing, software) in enumerate((("raw", None), ("denoised", "DenoisET"))):
            double.records["tomograms"].append(
                {
                    "id": 10 * run["id"] + number,
                    "run": run,
                    "runId": run["id"],
                    "alignmentId": 1,
                    "reconstructionMethod": "WBP",
                    "processing": processing,
                    "processingSoftware": software,
                    "ctfCorrected": processing == "denoised",
                    "voxelSpacing": 10.0,
                    "s3OmezarrDir": f"s3://portal/10446/{run['name']}/{processing}.zarr",
                }
            )
        for number, (name, truth, shapes, alignment) in enumerate(
            (
                ("cytosolic ribosome", True, ("Point", "OrientedPoint"), 1),
                ("ferritin complex", True, ("Point",), 1),
                ("ferritin complex", False, ("Point",), 1),
                ("membrane", True, ("SegmentationMask", "Point"), 1),
                ("thyroglobulin", True, ("Point",), 2),
            )
        ):
            annotation = {
                "id": 10 * run["id"] + number,
                "run": run,
                "runId": run["id"],
                "objectName": name,
                "groundTruthStatus": truth,
                "depositionId": 10310 if truth else 10358,
                "annotationMethod": "by hand" if truth else "a program",
            }
            double.records["annotations"].append(annotation)
            for shape_type in shapes:
                shape = {
                    "id": len(double.records["annotationShapes"]) + 1,
                    "annotation": annotation,
                    "annotationId": annotation["id"],
                    "shapeType": shape_type,
                }
                double.records["annotationShapes"].append(shape)
                place = f"10446/{run['name']}/{annotation['id']}_{shape_type}.ndjson"
                files[place] = ndjson([(1, 2, 3), (4, 5, number)], TURN if shape_type == "OrientedPoint" else None)
                double.records["annotationFiles"].append(
                    {
                        "id": shape["id"] + 1000,
                        "annotationShape": shape,
                        "annotationShapeId": shape["id"],
                        "alignmentId": alignment,
                        "tomogramVoxelSpacingId": spacing["id"],
                        "format": "zarr" if shape_type == "SegmentationMask" else "ndjson",
                        "s3Path": f"s3://portal/{place}",
                    }
                )
    return files


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Served]:
    folder = tmp_path_factory.mktemp("portal")
    for place, text in filled(Double()).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    with servers.s3_server() as served:
        servers.put_folder(served, "portal", folder)
        yield served


@pytest.fixture(scope="module")
def running() -> Iterator[Double]:
    with portal_double() as double:
        yield double


@pytest.fixture
def double(running: Double, bucket: servers.Served, monkeypatch: pytest.MonkeyPatch) -> Double:
    """As new."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.url)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setattr(portal_module, "URL", running.url)
    running.questions, running.broken = 0, False
    filled(running)
    return running


def test_runs_and_their_tomograms(double: Double) -> None:
    portal = open_portal([10446])
    assert double.questions == 6 and portal.runs == ("TS_1", "TS_2")
    runs = portal_runs(portal)
    assert [(r.name, r.volume_path) for r in runs] == [
        (name, Address(f"s3://portal/10446/{name}/denoised.zarr")) for name in ("TS_1", "TS_2")
    ]
    assert portal_runs(portal, tomogram_type="wbp-denoised-denoiset-ctfdeconv", names=["TS_2"]) == runs[1:]
    assert str(portal_runs(portal, tomogram_type="raw")[0].volume_path).endswith("raw.zarr")
    assert portal_runs(portal, voxel_spacing_folder="VoxelSpacing10.000") == runs
    for options, said in (
        ({"names": ["TS_3"]}, r"no run TS_3; its runs are TS_1, TS_2"),
        ({"tomogram_type": "sirt"}, r"wbp-raw at 10\.000 Å"),
        ({"tomogram_type": "wbp"}, r"several.*wbp-denoised-denoiset-ctfdeconv"),
        ({"voxel_spacing_folder": "7.84"}, r"no tomogram of type denoised"),
    ):
        with pytest.raises(InputError, match=said):
            portal_runs(portal, **options)  # type: ignore[arg-type]


def test_picks_of_the_ground_truth(double: Double) -> None:
    portal = open_portal([10446])
    notes: list[str] = []
    found = portal_picks(portal, portal_runs(portal), CZII_TYPES, note=notes.append)
    assert list(found) == ["TS_1", "TS_2"]
    picks = found["TS_1"]
    names = [CZII_TYPES[i].name for i in picks.type_index]
    assert names == ["apo-ferritin"] * 2 + ["ribosome"] * 2  # thyroglobulin lies in another alignment
    assert picks.xyz_angstrom.tolist() == [[10, 20, 30], [40, 50, 10], [10, 20, 30], [40, 50, 0]]
    assert picks.orientation is not None
    np.testing.assert_array_equal(picks.orientation, [np.eye(3)] * 2 + [TURN] * 2)
    assert len(notes) == 1 and "membrane" in notes[0]
    other = portal_picks(portal, ["TS_1"], CZII_TYPES, deposition=10358)["TS_1"]
    assert other.xyz_angstrom.tolist() == [[10, 20, 30], [40, 50, 20]]


def test_what_is_not_clear_is_asked(double: Double) -> None:
    for annotation in double.records["annotations"]:
        annotation["groundTruthStatus"] = False
    portal = open_portal([10446])
    with pytest.raises(InputError, match=r"several annotations of ferritin-complex.*10310.*10358.*--deposition"):
        portal_picks(portal, portal.runs, CZII_TYPES)
    notes: list[str] = []
    portal_picks(portal, portal_runs(portal), CZII_TYPES[2:], note=notes.append)
    assert any("cytosolic-ribosome (by hand" in n for n in notes)


def test_a_copick_project_of_the_portal(double: Double, tmp_path: pathlib.Path) -> None:
    """Its runs go by their numbers, as copick has them."""
    config = {"config_type": "cryoet_data_portal", "dataset_ids": [10446], "overlay_root": f"local://{tmp_path}"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = find_source(None, str(tmp_path / "config.json"), InputOptions())
    assert [r.name for r in source.runs] == ["11", "12"] and source.project is not None
    assert set(known_picks(source, CZII_TYPES, TruthOptions())) == {"11", "12"}
    for chosen in (TruthOptions(picks_user="curator"), TruthOptions(picks_session="1")):
        with pytest.raises(InputError, match=r"--picks-user and --picks-session select nothing.*--deposition"):
            check_truth(chosen, str(tmp_path / "config.json"))
    check_truth(TruthOptions(deposition=10358), str(tmp_path / "config.json"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"dataset_ids": "10446"}))
    with pytest.raises(InputError, match="dataset_ids"):
        find_source(None, str(tmp_path / "config.json"), InputOptions())


def test_scores_against_the_portal(double: Double, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tmp_path), "--portal", "10446", "--runs", "TS_1"]
    assert score(command) == 2  # of which of the two, nothing tells
    said = capsys.readouterr().err
    assert all(fact in said for fact in ("TS_1", "alignment 1 has", "alignment 2 has thyroglobulin", "--deposition"))
    for file in double.records["annotationFiles"]:
        file["alignmentId"] = 1
    truth = portal_picks(open_portal([10446]), ["TS_1"], CZII_TYPES)["TS_1"]
    write_copick_picks(truth, tmp_path)
    assert score([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["runs"] == ["TS_1"] and result["types"]["ribosome"]["f4"] == 1
    for wrong, said in (
        (["--portal", "10446", "--runs", "TS_9"], "TS_9"),
        ([str(tmp_path), "--portal", "10446"], "both given"),
        ([str(tmp_path), "--deposition", "1"], "--portal"),
    ):
        assert score([str(tmp_path), *wrong]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_an_inference_of_the_portal(
    double: Double, bucket: servers.Served, dataset: pathlib.Path, engines: pathlib.Path, tmp_path: pathlib.Path, capsys
) -> None:
    tomogram = min(dataset.glob("train/static/ExperimentRuns/*/*/denoised.zarr"))
    servers.put_folder(bucket, "portal", tomogram, "10446/TS_1/denoised.zarr/")
    options = ["--engines", str(engines), "--portal", "10446", "--runs", "TS_1", "--out", str(tmp_path / "picks")]
    assert infer([*options, "--no-report", "--cache", str(tmp_path / "cache")]) == 0
    assert "against the known picks of TS_1" in capsys.readouterr().out
    assert score([str(tmp_path / "picks"), "--portal", "10446", "--runs", "TS_1"]) == 0


def test_what_the_portal_does_not_give(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"portal:7: .*no such dataset"):
        open_portal([7])
    double.broken = True
    with pytest.raises(InputError, match=r"cannot be asked .*out of order"):
        open_portal([10446])
    monkeypatch.setitem(sys.modules, "cryoet_data_portal", None)
    with pytest.raises(InputError, match="pip install cryoet-data-portal"):
        open_portal([10446])


def test_names() -> None:
    assert set(OTHER_NAMES.values()) <= {t.name for t in CZII_TYPES}
    for name, kind in (("Cytosolic ribosome", 2), ("virus-like capsid", 4), ("beta-amylase", 5), ("membrane", None)):
        assert portal_type(name, CZII_TYPES) == kind


def test_files_that_were_downloaded(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "10440" / "TS_1" / "Reconstructions" / "VoxelSpacing10.000" / "Annotations" / "100"
    folder.mkdir(parents=True)
    (folder / "cytosolic_ribosome-1.0_orientedpoint.ndjson").write_text(ndjson([(1, 2, 3)], TURN))
    (folder / "ferritin_complex-1.0_point.ndjson").write_text(ndjson([(4, 5, 6)]))
    (folder / "membrane-1.0_point.ndjson").write_text(ndjson([(4, 5, 6)]))
    notes: list[str] = []
    picks: Picks = read_picks(folder, CZII_TYPES, note=notes.append)["TS_1"]
    assert sorted(picks.xyz_angstrom.tolist()) == [[10, 20, 30], [40, 50, 60]]
    assert any("membrane" in n for n in notes) and any("10.000 Å was used" in n for n in notes)
    assert detect(folder).name == detect(folder / "membrane-1.0_point.ndjson").name == "portal"
    five = TomogramGeometry(voxel_spacing_xyz_angstrom=(5, 5, 5))
    given, beside = Geometries(default=five), Geometries(by_run={"TS_1": five})
    assert read_picks(folder, CZII_TYPES[2:3], given)["TS_1"].xyz_angstrom.tolist() == [[5, 10, 15]]
    notes.clear()
    picks = read_picks(folder, CZII_TYPES[2:3], beside, note=notes.append)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[10, 20, 30]]  # they are of the folder's tomogram
    assert any("10.000 Å was used, not the tomogram's of 5.000" in n for n in notes)
    file = folder / "ferritin_complex-1.0_point.ndjson"
    for bad in ("[1]", "{}", '{"location": {"x": 1, "y": 2}}', '{"location": {"x": 1, "y": 2, "z": NaN}}', "x"):
        file.write_text(ndjson([(4, 5, 6)]) + bad)
        with pytest.raises(InputError, match="ferritin_complex"):
            read_picks(file, CZII_TYPES, given)
