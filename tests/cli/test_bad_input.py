"""Whatever is wrong with the input ends in one message, a non-zero exit code, and nothing lost."""

import json
import pathlib
import re
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import zarr

from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.score import main as score
from jaxcryo.cli.train import main as train
from jaxcryo.errors import InputError
from jaxcryo.tomogram.volumes import write_ome_zarr

TOMOGRAM = "VoxelSpacing10.000/denoised.zarr"


def truncate(tomogram: pathlib.Path) -> None:
    chunk = next(p for p in sorted((tomogram / "0").rglob("*")) if p.is_file() and not p.name.startswith("."))
    chunk.write_bytes(chunk.read_bytes()[:100])


def rewrite(voxels: np.ndarray) -> Callable[[pathlib.Path], object]:
    return lambda tomogram: write_ome_zarr(tomogram, voxels.astype(np.float32), (10.012444,) * 3, levels=1)


def with_nan(tomogram: pathlib.Path) -> None:
    array = zarr.open_array(tomogram / "0", mode="r+")
    array[3, 4, 5] = np.nan


def flat(tomogram: pathlib.Path) -> None:
    shutil.rmtree(tomogram / "0")
    zarr.create_array(
        tomogram / "0", data=np.zeros((40, 40), np.float32), zarr_format=2, config={"write_empty_chunks": True}
    )


VOLUME_FAULTS = {
    "rank": (flat, r"shape \(40, 40\); expected z, y, x"),
    "equal": (rewrite(np.ones((32, 72, 80))), "every voxel is 1; expected a tomogram"),
    "small": (
        rewrite(np.random.default_rng(0).normal(size=(8, 12, 40))),
        "8×12×40 voxels.*windows of 16×64×64; expected at least a quarter",
    ),
    "level": (lambda tomogram: shutil.rmtree(tomogram / "0"), "level 0|level"),
    "chunk": (truncate, "truncated|damaged"),
}


def copies(dataset: pathlib.Path, root: pathlib.Path, changes: dict[str, Callable[[pathlib.Path], object]]) -> None:
    """A dataset of one good run, PH_000, and of copies of it that are changed, by their names."""
    runs = root / "train/static/ExperimentRuns"
    for name in ("PH_000", *changes):
        shutil.copytree(dataset / "train/static/ExperimentRuns/PH_000", runs / name)
        changes.get(name, lambda _: None)(runs / name / TOMOGRAM)


def test_bad_tomograms_do_not_stop_the_others(dataset, one_model, tmp_path, capsys) -> None:
    root, out = tmp_path / "data", tmp_path / "picks"
    copies(dataset, root, {name: spoil for name, (spoil, _) in VOLUME_FAULTS.items()})
    assert infer(["--engines", str(one_model), "--data", str(root), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert f"{len(VOLUME_FAULTS)} of {1 + len(VOLUME_FAULTS)} runs failed" in said.err
    for name, (_, message) in VOLUME_FAULTS.items():
        assert re.search(f"{name}: .*({message})", said.err), said.err
    assert {p.name for p in (out / "ExperimentRuns").iterdir()} == {"PH_000"}
    assert "PH_000" in (out / "submission.csv").read_text()


DONE_AND_SAID = {
    "nan": (with_nan, r"% of it is empty \(NaN\)"),
    "small": (
        rewrite(np.random.default_rng(0).normal(size=(8, 40, 40))),
        "has 8×40×40 voxels.*windows of 16×64×64: padded",
    ),
}


@pytest.mark.slow
def test_empty_voxels_and_sides_below_a_window_are_done_and_said(dataset, one_model, tmp_path, capsys) -> None:
    root, out = tmp_path / "data", tmp_path / "picks"
    copies(dataset, root, {name: change for name, (change, _) in DONE_AND_SAID.items()})
    command = ["--engines", one_model, "--data", root, "--out", out, "--runs", *DONE_AND_SAID]
    assert infer([str(a) for a in command]) == 0
    said = capsys.readouterr()
    for name, (_, note) in DONE_AND_SAID.items():
        assert re.search(f"{name}: .*{note}", said.out + said.err), said.out + said.err
    assert {p.name for p in (out / "ExperimentRuns").iterdir()} == set(DONE_AND_SAID)


def refused(main, args, capsys) -> str:
    assert main([str(a) for a in args]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "Traceback" not in said.err + said.out
    return said.err


def test_datasets(dataset, one_model, tmp_path, capsys) -> None:
    base = ["--engines", one_model, "--out", tmp_path / "picks", "--data"]
    assert "does not exist" in refused(infer, [*base, tmp_path / "nowhere"], capsys)
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refused(infer, [*base, tmp_path / "empty"], capsys)
    assert "has no run TS_1; its runs are PH_000" in refused(infer, [*base, dataset, "--runs", "TS_1"], capsys)
    assert not (tmp_path / "picks").exists()


def test_folds_and_arches(dataset, tmp_path, capsys, monkeypatch) -> None:
    base = ["--data", dataset, "--size", "tiny", "--out", tmp_path / "run"]
    message = refused(train, [*base, "--arch", "yu4u", "--fold", "5"], capsys)
    assert "fold 5 does not exist" in message and "0 PH_000, 1 PH_001" in message
    assert "--fold is missing" in refused(train, [*base, "--arch", "yu4u"], capsys)
    message = refused(train, [*base, "--arch", "unet", "--fold", "0"], capsys)
    assert "unet" in message and "tattaka" in message

    def no_network(*_: object) -> None:
        raise InputError("the hub cannot be reached")

    monkeypatch.setattr("jaxcryo.cli.starting_weights.port_files", no_network)
    command = ["--arch", "yu4u", "--fold", "0", "--data", dataset, "--weights", tmp_path / "weights"]
    message = refused(train, command, capsys)
    assert "jaxcryo convert port timm/convnext_nano.in12k_ft_in1k" in message and "--from-scratch" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"points": [{"location": {"x": 1e5, "y": 1, "z": 1}}]}', "outside the volume.*--voxel-spacing"),
        ("{", "parse|JSON"),
    ],
)
def test_picks(text, message, dataset, tmp_path, capsys) -> None:

    root = tmp_path / "data"
    shutil.copytree(dataset, root)
    file = next((root / "train/overlay").rglob("PH_001/Picks/ribosome.json"))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **json.loads(text)}) if text != "{" else text)
    said = refused(train, ["--arch", "yu4u", "--fold", "0", "--data", root, "--size", "tiny", "--out", tmp_path / "r"],
                   capsys)  # fmt: skip
    assert re.search(message, said)


def test_engine_folders(dataset, one_model, tmp_path, capsys) -> None:
    base = ["--data", dataset, "--out", tmp_path / "picks", "--engines"]
    assert "no such folder" in refused(infer, [*base, tmp_path / "nowhere"], capsys)
    (tmp_path / "bare").mkdir()
    assert "engines.json" in refused(infer, [*base, tmp_path / "bare"], capsys)
    shutil.copytree(one_model, tmp_path / "changed")
    onnx = next((tmp_path / "changed").glob("*.onnx"))
    onnx.write_bytes(onnx.read_bytes() + b"x")
    assert f"{onnx}: does not match engines.json" in refused(infer, [*base, tmp_path / "changed"], capsys)
    assert "--engines" in refused(infer, ["--data", dataset], capsys)


@pytest.mark.slow
def test_output_that_cannot_be_written_and_other_settings(dataset, one_model, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("mine")
    base = ["--engines", one_model, "--data", dataset, "--runs", "PT_000", "--out"]
    refused(infer, [*base, tmp_path / "file"], capsys)
    assert (tmp_path / "file").read_text() == "mine"
    assert infer([str(a) for a in [*base, tmp_path / "picks"]]) == 0
    before = (tmp_path / "picks" / "submission.csv").read_text()
    capsys.readouterr()
    message = refused(infer, [*base, tmp_path / "picks", "--voxel-spacing", "11"], capsys)
    assert "different models or settings" in message
    assert (tmp_path / "picks" / "submission.csv").read_text() == before


def test_score(dataset, tmp_path, capsys) -> None:
    assert "does not exist" in refused(score, [tmp_path / "none", dataset], capsys)
    table = tmp_path / "submission.csv"
    table.write_text("id,experiment,particle_type,x,y,z\n0,PH_000,unicorn,1,2,3\n")
    assert "unicorn" in refused(score, [table, dataset], capsys)
    assert "no known picks" in refused(score, [dataset / "train/overlay", tmp_path], capsys)
