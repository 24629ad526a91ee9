"""A copick project's tomograms and picks are found where copick puts them, and only its overlay is written to."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.project.copick import (
    CopickProject,
    check_no_own_files,
    has_picks,
    open_project,
    project_picks,
    project_runs,
    write_project_picks,
)

TYPES = CZII_TYPES[:2]


def picks_of(run: str, xyz: tuple[float, float, float] = (1, 2, 3), score: float | None = None) -> Picks:
    return Picks(
        run=run, types=TYPES, xyz_angstrom=np.array([xyz], float), type_index=np.array([1]),
        score=None if score is None else np.array([score]),
    )  # fmt: skip


def config(folder: pathlib.Path, **changes: Any) -> pathlib.Path:
    content = {
        "config_type": "filesystem",
        "name": "test",
        "pickable_objects": [{"name": "ribosome", "is_particle": True, "radius": 150}],
        "overlay_root": f"local://{folder / 'overlay'}",
        "static_root": f"file://{folder / 'static'}",
    }
    path = folder / "config.json"
    path.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))
    return path


def put(root: pathlib.Path, run: str, spacing: str = "VoxelSpacing10.000", kind: str = "denoised") -> pathlib.Path:
    folder = root / "ExperimentRuns" / run / spacing / f"{kind}.zarr"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def project(tmp_path: pathlib.Path) -> CopickProject:
    """R1 in both parts with the overlay's tomogram in front, R2 at two spacings, R3 without tomograms."""
    put(tmp_path / "static", "R1")
    put(tmp_path / "overlay", "R1")
    put(tmp_path / "static", "R2")
    put(tmp_path / "static", "R2", "VoxelSpacing7.840")
    put(tmp_path / "static", "R2", "VoxelSpacing7.840", "wbp")
    (tmp_path / "static/ExperimentRuns/R3").mkdir()
    (tmp_path / "static/ExperimentRuns/.hidden").mkdir()
    write_copick_picks(picks_of("R1"), tmp_path / "static", user_id="curator", session_id="1")
    return open_project(config(tmp_path))


def test_runs_and_tomograms(project: CopickProject, tmp_path: pathlib.Path) -> None:
    assert project.run_names() == ["R1", "R2", "R3"]
    places = {r.name: r.volume_path.relative_to(tmp_path) for r in project_runs(project, near_angstrom=9.0)}
    assert {n: str(p).split("/")[0] + p.parent.name for n, p in places.items()} == {
        "R1": "overlayVoxelSpacing10.000",
        "R2": "staticVoxelSpacing10.000",
    }
    for folder in ("VoxelSpacing7.840", "7.84"):
        (run,) = project_runs(project, names=["R2"], voxel_spacing_folder=folder)
        assert run.volume_path.parent.name == "VoxelSpacing7.840"
    assert project_runs(project, tomogram_type="wbp")[0].volume_path.name == "wbp.zarr"
    with pytest.raises(InputError, match=r"several spacings.*--voxel-spacing-folder: VoxelSpacing7\.840, VoxelS"):
        project_runs(project)
    with pytest.raises(InputError, match="no run R9; its runs are R1, R2, R3"):
        project_runs(project, names=["R9"])
    with pytest.raises(InputError, match=r"R3 has no VoxelSpacing\*/denoised\.zarr; there is no tomogram"):
        project_runs(project, names=["R3"])
    with pytest.raises(InputError, match=r"has no VoxelSpacing\*/isonet\.zarr; there is .*VoxelSpacing7\.840/wbp"):
        project_runs(project, tomogram_type="isonet")
    for kind in ("../../x", "", "/etc"):
        with pytest.raises(InputError, match="a tomogram type is called"):
            project_runs(project, tomogram_type=kind)
    with pytest.raises(InputError, match=r"expected one such as VoxelSpacing10\.000"):
        project_runs(project, voxel_spacing_folder="../static")


def test_picks_of_a_user_and_a_session(project: CopickProject) -> None:
    assert project.static is not None
    write_copick_picks(picks_of("R1", (9, 9, 9)), project.static)  # by jaxcryo
    np.testing.assert_array_equal(project_picks(project, "R1", TYPES).xyz_angstrom, [[1, 2, 3]])
    assert project_picks(project, "R1", TYPES, user="jaxcryo").xyz_angstrom[0, 0] == 9
    write_copick_picks(picks_of("R1", (4, 4, 4)), project.overlay, user_id="curator", session_id="1")
    assert project_picks(project, "R1", TYPES).xyz_angstrom[0, 0] == 4  # the overlay's goes before
    write_copick_picks(picks_of("R1", (5, 5, 5)), project.overlay, user_id="expert", session_id="2")
    with pytest.raises(InputError, match="curator in 1, expert in 2; choose with --picks-user"):
        project_picks(project, "R1", TYPES)
    assert project_picks(project, "R1", TYPES, session="2").xyz_angstrom[0, 0] == 5
    assert has_picks(project, "R1", TYPES, user="expert", session=None)
    assert not has_picks(project, "R2", TYPES, user=None, session=None)
    with pytest.raises(InputError, match="no picks of apo-ferritin, beta-galactosidase by nobody; it has apo-"):
        project_picks(project, "R1", TYPES, user="nobody")
    with pytest.raises(InputError, match="a run is called"):
        project_picks(project, "../R1", TYPES)


def test_picks_are_written_to_the_overlay_alone_and_nothing_is_replaced(project: CopickProject) -> None:
    before = {p: p.read_bytes() for root in project.roots for p in root.rglob("*") if p.is_file()}
    write_copick_picks(picks_of("R1", (7, 7, 7)), project.overlay, user_id="jaxcryo", session_id="mine")
    files = write_project_picks(project, {"R1": picks_of("R1", score=0.5)}, force=False)
    assert {f.name for f in files} == {f"jaxcryo_0_{t.name}.json" for t in TYPES}
    assert all(f.is_relative_to(project.overlay) for f in files)
    found = project_picks(project, "R1", TYPES, user="jaxcryo", session="0")
    assert found.score is not None and found.score.tolist() == [0.5]
    with pytest.raises(InputError, match="--force"):
        check_no_own_files(project, ["R1"])
    check_no_own_files(project, ["R2"])
    write_project_picks(project, {"R1": picks_of("R1", score=0.5)}, force=False)  # the same once more
    with pytest.raises(InputError, match=r"already exists.*--force"):
        write_project_picks(project, {"R1": picks_of("R1", score=0.75)}, force=False)
    write_project_picks(project, {"R1": picks_of("R1", score=0.75)}, force=True)
    assert {p: p.read_bytes() for p in before} == before
    assert json.loads((project.overlay / "ExperimentRuns/R1/Picks/jaxcryo_mine_beta-galactosidase.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config_type": "ssh"}, "is of type 'ssh'"),
        ({"config_type": "cryoet_data_portal"}, "dataset_ids"),
        ({"overlay_root": "s3://bucket/x"}, r"only local:// and file:// are read, not s3://"),
        ({"overlay_root": "ssh:///x"}, "not ssh://"),
        ({"static_root": 7}, "'7'"),
        ({"static_root": "local://relative"}, "expected an absolute path"),
        ({"overlay_root": "relative"}, "expected an absolute path"),
        ({"overlay_root": None}, "has no 'overlay_root'"),
        ({"overlay_root": "/a\0b"}, r"NUL|/a"),
    ],
)
def test_projects_that_are_not_here(tmp_path: pathlib.Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_project(config(tmp_path, **changes))


def test_plain_paths_and_an_empty_project(tmp_path: pathlib.Path) -> None:
    project = open_project(config(tmp_path, overlay_root=str(tmp_path / "a"), static_root=None))
    assert project.roots == (tmp_path / "a",)
    with pytest.raises(InputError, match="has no runs in"):
        project_runs(project)
