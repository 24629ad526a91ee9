"""Further formats and masks of infer.py, and picks in other formats for train.py."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import starfile

from jaxcryo.cli.geometry import read_given_picks
from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.options import GeometryOptions
from jaxcryo.cli.picks import main as convert_picks
from jaxcryo.cli.train import main as train
from jaxcryo.domain import CZII_TYPES
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.project.dataset import find_runs, read_run_picks
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr


def run(main: object, *args: object) -> int:
    assert callable(main)
    code: int = main([str(a) for a in args])
    return code


@pytest.mark.slow
def test_infer_writes_other_formats(dataset, one_model, tmp_path, capsys) -> None:
    out = tmp_path / "picks"
    command = ["--engines", one_model, "--data", dataset, "--out", out, "--runs", "PH_000"]
    assert run(infer, *command, "--format", "relion5") == 2
    assert "--pixel-size" in capsys.readouterr().err and not out.exists()
    assert run(infer, *command, "--format", "relion5", "dynamo", "napari", "csv", "--pixel-size", "2.5") == 0
    said = capsys.readouterr()
    assert "STAR of RELION 5" in said.out and "unbinned size was taken from the tomograms" in said.err
    picks = read_copick_folder(out, CZII_TYPES)["PH_000"]
    tables = [starfile.read(out / "relion5" / f"{t.name}.star") for t in CZII_TYPES]
    assert [len(t) for t in tables] == [len(picks.of_type(i)) for i in range(len(CZII_TYPES))]
    assert sum(len(f.read_text().splitlines()) for f in (out / "dynamo").glob("*.tbl")) == len(picks)
    assert len(list(csv.reader((out / "picks.csv").read_text().splitlines()))) == len(picks) + 1
    assert (out / "napari" / "PH_000.csv").is_file()


def test_infer_replaces_no_files_of_others(dataset, one_model, tmp_path, capsys) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    command = ["--engines", one_model, "--data", dataset, "--out", out, "--runs", "PH_000", "--format", "csv"]
    for name in ("picks.csv", "submission.csv", "settings.json"):
        (out / name).write_text("[]")
        assert run(infer, *command) == 2
        assert name in capsys.readouterr().err
        assert [f.name for f in out.iterdir()] == [name] and (out / name).read_text() == "[]"
        (out / name).unlink()


@pytest.mark.slow
def test_infer_with_a_mask(dataset, one_model, tmp_path, capsys) -> None:
    volume = open_volume(next(r for r in find_runs(dataset) if r.name == "PH_000").volume_path)
    voxels = np.zeros(volume.grid.shape_zyx, np.float32)
    voxels[:, :, : voxels.shape[2] // 2] = 1
    write_ome_zarr(tmp_path / "half.zarr", voxels, volume.grid.spacing_zyx_angstrom, levels=1)
    command = ["--engines", one_model, "--data", dataset, "--runs", "PH_000", "--out"]
    assert run(infer, *command, tmp_path / "all") == 0
    assert run(infer, *command, tmp_path / "some", "--mask", tmp_path / "half.zarr") == 0
    every, some = (read_copick_folder(tmp_path / f, CZII_TYPES)["PH_000"] for f in ("all", "some"))
    x, x_every = (np.rint(volume.grid.to_voxel(p.xyz_angstrom))[:, 2] for p in (some, every))
    assert 0 < len(some) < len(every) and (x < voxels.shape[2] // 2).all()
    # close to the rim a pick may have been merged into a better one outside
    assert len(
        set(map(tuple, every.xyz_angstrom[x_every < voxels.shape[2] // 2].tolist()))
        - set(map(tuple, some.xyz_angstrom.tolist()))
    ) < 0.02 * len(some)
    assert json.loads((tmp_path / "some" / "settings.json").read_text())["mask"].endswith("half.zarr")
    assert run(infer, *command, tmp_path / "some") == 2
    assert run(infer, *command, tmp_path / "none", "--mask", tmp_path / "nowhere.mrc") == 2
    assert "expected a mask" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["copick", "relion4", "relion5", "napari", "csv"])
def test_picks_to_train_on(name, dataset, tmp_path) -> None:
    frame = ["--pixel-size", "2.5", "--unbinned-size", "400", "300", "200"]
    picks = tmp_path / ("a.csv" if name == "csv" else "a")
    data = ["--data", dataset]
    assert run(convert_picks, "convert", dataset / "train/overlay", picks, "--to", name, *frame, *data) == 0
    runs = find_runs(dataset, split="train")
    geometry = GeometryOptions(pixel_size=2.5, unbinned_size=(400, 300, 200))
    given = read_given_picks(str(picks), runs, CZII_TYPES, geometry, None)
    assert list(given) == [r.name for r in runs]
    for r in runs:
        np.testing.assert_allclose(given[r.name].xyz_angstrom, read_run_picks(r, CZII_TYPES).xyz_angstrom, atol=1e-9)


def test_train_uses_the_given_picks(dataset, tmp_path, capsys) -> None:
    table = tmp_path / "a.csv"
    command = [
        "--arch",
        "yu4u",
        "--data",
        dataset,
        "--size",
        "tiny",
        "--fold",
        "0",
        "--picks",
        table,
        "--out",
        tmp_path,
    ]
    table.write_text("run,particle,x,y,z\nPH_000,ribosome,1,2,3\n")
    assert run(train, *command) == 2
    assert "has no picks of PH_001; it has picks of PH_000" in capsys.readouterr().err
    table.write_text("run,particle,x,y,z\nPH_000,ribosome,1,2,3\nPH_001,ribosome,99999,2,3\n")
    assert run(train, *command) == 2
    assert "PH_001: 1 of 1 picks are outside the volume" in capsys.readouterr().err
