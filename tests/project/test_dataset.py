"""Runs are found in every layout, in the order of the folds; unclear datasets are refused."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import write_copick_picks, write_kaggle_picks
from jaxcryo.project.dataset import find_runs, read_run_picks, within_volume
from jaxcryo.tomogram.volumes import open_volume, write_ome_zarr

FOLDS = ["TS_5_4", "TS_69_2", "TS_6_4", "TS_6_6", "TS_73_6", "TS_86_3", "TS_99_9"]
VOXELS = np.zeros((4, 5, 6), np.float32)
SPACING = (10.0, 10.0, 10.0)


def picks_of(run: str, xyz: tuple[float, float, float] = (1, 2, 3)) -> Picks:
    return Picks(run=run, types=CZII_TYPES, xyz_angstrom=np.array([xyz], float), type_index=np.array([2]))


def put_tomogram(root: pathlib.Path, run: str, kind: str = "denoised", spacing: str = "VoxelSpacing10.000") -> None:
    write_ome_zarr(root / "ExperimentRuns" / run / spacing / f"{kind}.zarr", VOXELS, SPACING, levels=1)


@pytest.fixture
def czii(tmp_path: pathlib.Path) -> pathlib.Path:
    for run in FOLDS:
        put_tomogram(tmp_path / "train" / "static", run)
        write_kaggle_picks(picks_of(run), tmp_path / "train" / "overlay")
    for run in ("TS_5_4", "TS_7_7"):
        put_tomogram(tmp_path / "test" / "static", run)
    (tmp_path / "train" / "static" / "ExperimentRuns" / ".DS_Store").touch()
    return tmp_path


def test_training_runs_come_in_the_order_of_the_folds(czii: pathlib.Path) -> None:
    runs = find_runs(czii, split="train")
    assert [r.name for r in runs] == FOLDS
    for run in runs:
        assert open_volume(run.volume_path, name=run.name).name == run.name
        np.testing.assert_array_equal(read_run_picks(run, CZII_TYPES).xyz_angstrom, [[1, 2, 3]])


def test_test_runs_have_no_picks(czii: pathlib.Path) -> None:
    runs = find_runs(czii, split="test")
    assert [r.name for r in runs] == ["TS_5_4", "TS_7_7"] and all(r.picks_folder is None for r in runs)
    with pytest.raises(InputError, match="TS_5_4: has no picks; expected overlay"):
        read_run_picks(runs[0], CZII_TYPES)


def test_without_a_split_both_parts_are_taken_and_train_goes_first(czii: pathlib.Path) -> None:
    runs = find_runs(czii)
    assert [r.name for r in runs] == sorted([*FOLDS, "TS_7_7"])
    assert [r.name for r in runs if r.picks_folder is None] == ["TS_7_7"]
    assert find_runs(czii / "train") == find_runs(czii, split="train")


def test_runs_can_be_named(czii: pathlib.Path) -> None:
    assert [r.name for r in find_runs(czii, names=["TS_99_9", "TS_5_4"])] == ["TS_5_4", "TS_99_9"]
    with pytest.raises(InputError, match="no run TS_1; its runs are TS_5_4, TS_69_2"):
        find_runs(czii, names=["TS_1"])


def test_a_missing_split(czii: pathlib.Path) -> None:
    (czii / "test").rename(czii / "elsewhere")
    assert len(find_runs(czii)) == 7
    with pytest.raises(InputError, match="has no runs in test/; it has train"):
        find_runs(czii, split="test")


def test_a_copick_root_with_picks_beside_the_tomograms(tmp_path: pathlib.Path) -> None:
    put_tomogram(tmp_path, "R1")
    write_copick_picks(picks_of("R1"), tmp_path)
    (run,) = find_runs(tmp_path, split="train")
    assert len(read_run_picks(run, CZII_TYPES)) == 1


def test_the_reconstruction_has_to_be_clear(tmp_path: pathlib.Path) -> None:
    for spacing in ("VoxelSpacing10.000", "VoxelSpacing5.000"):
        put_tomogram(tmp_path, "R1", spacing=spacing)
    put_tomogram(tmp_path, "R1", kind="wbp")
    with pytest.raises(InputError, match=r"--voxel-spacing-folder: .*VoxelSpacing5\.000/denoised\.zarr"):
        find_runs(tmp_path)
    (run,) = find_runs(tmp_path, voxel_spacing_folder="VoxelSpacing5.000")
    assert run.volume_path.parent.name == "VoxelSpacing5.000"
    assert find_runs(tmp_path, tomogram_type="wbp")[0].volume_path.name == "wbp.zarr"
    with pytest.raises(InputError, match=r"no tomogram VoxelSpacing\*/isonet\.zarr; it has: .*wbp\.zarr"):
        find_runs(tmp_path, tomogram_type="isonet")


def test_a_folder_of_tomograms_and_a_single_one(tmp_path: pathlib.Path) -> None:
    write_ome_zarr(tmp_path / "b.zarr", VOXELS, SPACING, levels=1)
    (tmp_path / "a.mrc").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._a.mrc").touch()
    runs = find_runs(tmp_path)
    assert [(r.name, r.volume_path.name) for r in runs] == [("a", "a.mrc"), ("b", "b.zarr")]
    (single,) = find_runs(tmp_path / "b.zarr")
    assert single.name == "b" and single.volume_path == tmp_path / "b.zarr"
    assert find_runs(tmp_path / "a.mrc")[0].name == "a"
    (tmp_path / "a.rec").touch()
    with pytest.raises(InputError, match=r"a\.mrc and a\.rec.* rename one"):
        find_runs(tmp_path)


def test_nothing_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected train/ and test/"):
        find_runs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no run; expected"):
        find_runs(tmp_path)
    (tmp_path / "train" / "static" / "ExperimentRuns").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no run; expected"):
        find_runs(tmp_path, split="train")


def test_picks_outside_the_volume() -> None:
    grid = VoxelGrid(shape_zyx=(10, 20, 30), spacing_zyx_angstrom=(10, 10, 10))
    assert len(within_volume(picks_of("R", (285, 185, 85)), grid)) == 1
    with pytest.raises(InputError, match=r"R: 1 of 1 picks .* ribosome at \[285.0, 185.0, 325.0\].*300 × 200 × 100 Å"):
        within_volume(picks_of("R", (285, 185, 325)), grid)


@pytest.mark.parametrize(("beyond", "left"), [(5.0, 40), (130.0, 40), (200.0, 39)])
def test_a_pick_at_the_edge_refuses_no_training(beyond: float, left: int) -> None:
    """Up to a radius (ribosome: 150 Å) beyond the edge it stays, farther out it is dropped; both are said."""
    grid = VoxelGrid(shape_zyx=(30, 40, 50), spacing_zyx_angstrom=(10, 10, 10))
    xyz = np.full((40, 3), 200.0)
    xyz[0, 2] = 300 + beyond
    picks = Picks(run="R", types=CZII_TYPES, xyz_angstrom=xyz, type_index=np.full(40, 2))
    notes: list[str] = []
    assert len(within_volume(picks, grid, note=notes.append)) == left
    assert "1 of 40" in notes[0]
    xyz[:3, 2] = 600
    with pytest.raises(InputError, match="3 of 40 picks are outside"):
        within_volume(picks, grid)


def test_what_a_folder_of_tomograms_holds_besides_is_told(tmp_path: pathlib.Path) -> None:
    for name in ("TS_1.mrc", "TS_2.mrc.gz", "TS_3.st", "TS_4.rec", "TS_4.st", "TS_4.ali.bz2", "TS_5.em", "TS_6.hdf",
                 "notes.txt", ".hidden.mrc"):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "frames").mkdir()
    (tmp_path / "TS_7.mrc").symlink_to(tmp_path / "gone.mrc")
    (tmp_path / "TS_8.em").symlink_to(tmp_path / "gone.em")
    told: list[str] = []
    runs = {r.name: r.volume_path for r in find_runs(tmp_path, note=told.append)}
    assert list(runs) == ["TS_1", "TS_2", "TS_3", "TS_4", "TS_7"] and runs["TS_4"].name == "TS_4.rec"
    (sentence,) = told
    for part in ("TS_5.em (", "TS_6.hdf (", "notes.txt (", "frames (", "TS_4.st (", "TS_4.ali.bz2 (", "gone.em"):
        assert part in sentence
    assert "convert it to MRC" in sentence and ".hidden" not in sentence
    with pytest.raises(InputError, match=r"link to .*gone\.mrc"):  # a run that fails, and the others do not
        open_volume(runs["TS_7"])
    (tmp_path / "TS_1.map").touch()
    with pytest.raises(InputError, match=r"TS_1\.map and TS_1\.mrc.* rename one"):
        find_runs(tmp_path)


def test_a_link_to_a_lost_tomogram_in_the_challenge_s_layout_is_a_run(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "ExperimentRuns" / "R1" / "VoxelSpacing10.000"
    folder.mkdir(parents=True)
    (folder / "denoised.zarr").symlink_to(tmp_path / "gone.zarr")
    (run,) = find_runs(tmp_path)
    with pytest.raises(InputError, match=r"link to .*gone\.zarr"):
        open_volume(run.volume_path)
