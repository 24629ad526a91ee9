"""infer.py, score and train.py on copick projects, and on levels, spacings and contrasts."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.inputs import find_source, picks_to_train_on, read_types
from jaxcryo.cli.score import main as score
from jaxcryo.cli.train import TRAIN, TrainOptions
from jaxcryo.cli.training import suited
from jaxcryo.domain import CZII_TYPES, Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import read_copick_folder, write_copick_picks
from jaxcryo.project.dataset import find_runs, read_run_picks
from jaxcryo.recipes import recipe
from jaxcryo.tomogram.normalization import scaled
from jaxcryo.tomogram.volumes import open_volume


@pytest.fixture
def project(dataset: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The training runs as a copick project, with picks by a curator."""
    for run in find_runs(dataset, split="train"):
        write_copick_picks(read_run_picks(run, CZII_TYPES), tmp_path / "overlay", user_id="curator", session_id="1")
    objects = [{"name": t.name, "is_particle": True, "radius": t.radius_angstrom} for t in CZII_TYPES]
    content = {"config_type": "filesystem", "pickable_objects": objects}
    content |= {"overlay_root": f"local://{tmp_path / 'overlay'}", "static_root": f"local://{dataset / 'train/static'}"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return path


def run(main: object, *args: object) -> int:
    assert callable(main)
    code: int = main([str(a) for a in args])
    return code


@pytest.mark.slow
def test_infer_writes_into_the_project_and_score_reads_it(project, one_model, tmp_path, capsys) -> None:
    out, folder = tmp_path / "picks", tmp_path / "overlay/ExperimentRuns/PH_000/Picks"
    curated = {f: f.read_bytes() for f in folder.parents[1].rglob("curator_*")}
    command = ["--engines", one_model, "--copick", project, "--out", out, "--runs", "PH_000"]
    assert run(infer, *command) == 0
    said = capsys.readouterr().out
    assert "against the known picks of PH_000" in said and "the copick project: 6 files of user jaxcryo" in said
    own = {f.name: f.read_bytes() for f in folder.glob("jaxcryo_0_*.json")}
    assert own == {f.name: f.read_bytes() for f in (out / "ExperimentRuns/PH_000/Picks").iterdir()}
    assert run(infer, *command) == 0  # is done, and stays as it is
    assert run(infer, *command[:5], tmp_path / "other", *command[6:]) == 2
    assert "--force" in capsys.readouterr().err
    assert {f: f.read_bytes() for f in curated} == curated
    assert run(score, out, "--copick", project, "--picks-user", "curator", "--runs", "PH_000", "--json") == 0
    assert json.loads(capsys.readouterr().out)["types"]["ribosome"]["truth"] > 0
    assert run(score, out, "--copick", project, "--picks-user", "nobody", "--runs", "PH_000") == 2
    assert run(score, out) == 2 and "ground truth" in capsys.readouterr().err


def options(*args: object) -> TrainOptions:
    return TRAIN.parse(["--arch", "yu4u", "--fold", "0", *map(str, args)])


def picks_of(options: TrainOptions) -> dict[str, Picks]:
    source = find_source(options.data, options.copick, options.input, train=True)
    types = read_types(options.particles, options.copick)
    return picks_to_train_on(options.picks, source, types, options.truth, options.geometry, None)


def test_training_takes_tomograms_picks_and_types_of_the_project(project, dataset) -> None:
    assert [t.name for t in read_types(None, str(project))] == [t.name for t in CZII_TYPES]
    given = picks_of(options("--copick", project))
    for r in find_runs(dataset, split="train"):
        np.testing.assert_allclose(given[r.name].xyz_angstrom, read_run_picks(r, CZII_TYPES).xyz_angstrom)
    particles = project.with_name("particles.toml")
    particles.write_text("[ribosome]\nradius_angstrom = 150\n")
    own = picks_of(options("--copick", project, "--particles", particles))
    assert own["PH_000"].counts().keys() == {"ribosome"} and own["PH_000"].counts()["ribosome"] > 0
    with pytest.raises(InputError, match="--data and --copick"):
        picks_of(options("--copick", project, "--data", dataset))


def test_a_training_says_which_contrast_is_odd_and_fits_the_intensity_rule(dataset) -> None:
    volumes = [open_volume(r.volume_path, name=r.name) for r in find_runs(dataset)]
    config, told = recipe("yu4u", "tiny"), []
    same, _, skewness = suited(config, volumes, told.append)
    assert same == config and skewness < 0 and not told
    odd = scaled(volumes[0], gain=-1.0)
    suited(config, [odd, *volumes[1:]], told.append)
    assert told == [t for t in told if "PH_000 looks opposite" in t] and len(told) == 1
    own, _, negative = suited(config, [scaled(v, gain=-1e6, offset=100.0) for v in volumes], told.append)
    assert own.intensity.rule == "tomogram" and negative == pytest.approx(-skewness, rel=0.05)
    assert isinstance(odd, Volume)


@pytest.mark.slow
def test_a_level_gives_picks_in_the_full_tomogram_s_coordinates(dataset, one_model, tmp_path, capsys) -> None:
    command = ["--engines", one_model, "--data", dataset, "--runs", "PH_000", "--out"]
    assert run(infer, *command, tmp_path / "1", "--level", "1", "--no-refine") == 0
    assert "resampled from 20.025 to the models' 10.012 Å" in capsys.readouterr().err
    volume = open_volume(next(r for r in find_runs(dataset) if r.name == "PH_000").volume_path)
    picks = read_copick_folder(tmp_path / "1", CZII_TYPES)["PH_000"]
    zyx = volume.grid.to_voxel(picks.xyz_angstrom)
    # the resampled voxels are those of level 0
    np.testing.assert_allclose(zyx, np.rint(zyx), atol=1e-6)
    assert volume.grid.contains(zyx).all() and zyx.max() > 60
    assert run(infer, *command, tmp_path / "7", "--level", "7") == 1
    assert "has no level 7" in capsys.readouterr().err
    assert run(infer, *command, tmp_path / "1", "--invert") == 2
    assert "different models or settings" in capsys.readouterr().err
