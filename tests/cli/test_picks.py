"""`jaxcryo picks`: picks go through every format and come back, and nothing is lost in silence."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest

from jaxcryo.cli.picks import main
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks
from jaxcryo.picks.candidates import write_candidates
from jaxcryo.picks.copick_json import read_copick_folder, write_copick_picks
from jaxcryo.picks.formats import writable_formats
from jaxcryo.serialize import types_to_json
from jaxcryo.tomogram.volumes import write_ome_zarr

FRAME = ["--pixel-size", "1.5", "--unbinned-size", "4000", "4000", "1000", "--voxel-spacing", "10"]
FOUND = {"TS_1": (0, 0, 2, 2, 4), "TS_2": (1, 2)}


@pytest.fixture
def found(tmp_path: pathlib.Path) -> pathlib.Path:
    """What infer.py leaves: picks with scores and the settings."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "picks"
    for run, kinds in FOUND.items():
        n = len(kinds)
        picks = Picks(
            run=run,
            types=CZII_TYPES,
            xyz_angstrom=rng.uniform(0, 1000, (n, 3)),
            type_index=np.array(kinds),
            score=np.linspace(0.4, 0.8, n),
        )
        write_copick_picks(picks, folder)
    (folder / "settings.json").write_text(json.dumps({"thresholds": {t.name: 0.3 for t in CZII_TYPES}}))
    return folder


def run(*args: object) -> int:
    return main([str(a) for a in args])


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert run(*args) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("name", writable_formats())
def test_there_and_back(
    name: str, found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("a.csv" if name in ("kaggle", "csv") else "out")
    assert run("convert", found, out, "--to", name, *FRAME) == 0
    said = capsys.readouterr().out
    assert said.startswith("7 picks of 2 runs: copick's picks → ")
    assert ("cannot hold the scores of 7 picks" in said) == (name == "kaggle")
    assert run("convert", out, tmp_path / "back", "--to", "copick", *FRAME) == 0
    before, after = (read_copick_folder(f, CZII_TYPES) for f in (found, tmp_path / "back"))
    assert before.keys() == after.keys()
    for picks in before.values():
        same = after[picks.run]
        np.testing.assert_allclose(same.xyz_angstrom, picks.xyz_angstrom, atol=1e-3, rtol=0)
        np.testing.assert_array_equal(same.type_index, picks.type_index)


def test_spacings_are_read_from_the_tomograms(
    found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FOUND:
        write_ome_zarr(tmp_path / "data" / f"{name}.zarr", np.zeros((100, 100, 100), np.float32), (10.0,) * 3, levels=1)
    data = ["--data", tmp_path / "data"]
    assert run("convert", found, tmp_path / "a.tbl", *data) == 0
    assert run("convert", found, tmp_path / "r5", "--to", "relion5", *data, "--pixel-size", "2.5") == 0
    assert "taken from the tomograms as 400×400×400 pixels" in capsys.readouterr().err
    assert "pixel size" in refused(capsys, "convert", found, tmp_path / "r4", "--to", "relion4", *data)
    assert not (tmp_path / "r4").exists()


def test_tomograms_star(found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    star = tmp_path / "tomograms.star"
    rows = "".join(f"{name} 2.0 5 1000 900 300\n" for name in FOUND)
    star.write_text(
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesPixelSize #2\n_rlnTomoTomogramBinning #3\n"
        f"_rlnTomoSizeX #4\n_rlnTomoSizeY #5\n_rlnTomoSizeZ #6\n{rows}"
    )
    for name, out in (("relion5", "r"), ("dynamo", "a.tbl")):
        assert run("convert", found, tmp_path / out, "--to", name, "--tomograms", star) == 0
        assert run("convert", tmp_path / out, tmp_path / f"{name}-back", "--to", "copick", "--tomograms", star) == 0
        before, after = (read_copick_folder(f, CZII_TYPES)["TS_1"] for f in (found, tmp_path / f"{name}-back"))
        np.testing.assert_allclose(after.xyz_angstrom, before.xyz_angstrom, atol=1e-9)
    capsys.readouterr()


def test_nothing_is_overwritten(
    found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("mine")
    assert "--force" in refused(capsys, "convert", found, out, "--to", "csv")
    assert out.read_text() == "mine"
    assert "--force" in refused(capsys, "convert", found, found, "--to", "copick")
    assert run("convert", found, out, "--to", "csv", "--force") == 0
    assert out.read_text().startswith("run,particle,x,y,z,score\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "picks"]


def test_a_faulty_file_leaves_the_output_as_it_was(
    found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("mine")
    (tmp_path / "b.csv").write_text("run,particle,x,y,z\nTS_1,ribosome,1,2,nan\n")
    assert "line 2: z is 'nan'" in refused(capsys, "convert", tmp_path / "b.csv", out, "--to", "csv", "--force")
    (tmp_path / "b.csv").write_text("run,particle,x,y,z\n../../up,ribosome,1,2,3\n")
    said = refused(capsys, "convert", tmp_path / "b.csv", tmp_path / "c", "--to", "copick")
    assert "a run is called '../../up'" in said
    assert out.read_text() == "mine" and not (tmp_path / "c").exists()


def test_other_particles(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("run,particle,x,y,z\nTS_1,actin,1,2,3\n")
    command = ["convert", tmp_path / "a.csv", tmp_path / "out", "--to", "copick"]
    assert "unknown particle 'actin'" in refused(capsys, *command)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"pickable_objects": [{"name": "actin", "is_particle": True, "radius": 40}]}))
    assert run(*command, "--particles", config) == 0
    (file,) = (tmp_path / "out").rglob("*.json")
    assert file.name == "jaxcryo_0_actin.json"
    file.with_name("jaxcryo_0_ribosome.json").write_text('{"points": []}')
    assert run("convert", tmp_path / "out", tmp_path / "b.csv", "--to", "csv") == 0
    assert "skipped picks of ['actin']" in capsys.readouterr().err


def test_thresholds(found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text('{"ribosome": 0.65, "apo-ferritin": 0.1}')
    assert run("threshold", found, tmp_path / "out", "--thresholds", file) == 0
    said = capsys.readouterr()
    assert "ribosome: 2 above 0.65, 3 before" in said.out and "thyroglobulin: 0 as before" in said.out
    assert "not saved: apo-ferritin (0.3)" in said.err
    before, after = (read_copick_folder(f, CZII_TYPES) for f in (found, tmp_path / "out"))
    assert sum(map(len, before.values())) - 1 == sum(map(len, after.values()))
    for run_name, picks in after.items():
        score, old = picks.score, before[run_name]
        assert score is not None and old.score is not None
        keep = (old.type_index != 2) | (old.score > 0.65)
        np.testing.assert_array_equal(picks.xyz_angstrom, old.xyz_angstrom[keep])


def test_folders_of_infer_name_their_particles(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    actin = ParticleType(name="actin", radius_angstrom=40)
    picks = Picks(
        run="TS_1", types=(actin,), xyz_angstrom=np.ones((3, 3)) * [[1], [2], [3]],
        type_index=np.zeros(3, np.int64), score=np.array([0.3, 0.2, 0.1]),
    )  # fmt: skip
    folder, file = tmp_path / "picks", tmp_path / "thresholds.json"
    write_copick_picks(picks.select(np.array([0])), folder)
    write_candidates(picks, folder)
    settings = {"thresholds": {"actin": 0.25}, "floor": 0.05}
    settings |= {"particles": [{k: v for k, v in types_to_json([actin])[0].items() if k != "threshold"}]}
    (folder / "settings.json").write_text(json.dumps(settings))
    file.write_text('{"actin": 0.15}')
    assert run("threshold", folder, tmp_path / "out", "--thresholds", file) == 0
    assert "actin: 2 above 0.15, 1 before" in capsys.readouterr().out
    (found,) = read_copick_folder(tmp_path / "out", (actin,)).values()
    assert found.score is not None and found.score.tolist() == [0.3, 0.2]
    (folder / "settings.json").write_text(json.dumps(settings | {"particles": [{"name": "actin"}]}))
    assert "not a particle type" in refused(capsys, "threshold", folder, tmp_path / "out2", "--thresholds", file)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"ribosome": "high"}', '{"ribosome": NaN}', '{"ribosome": true}', '{"actin": 0.1}',
             f'{{"ribosome": 1{"0" * 400}}}'],
)  # fmt: skip
def test_faulty_thresholds(
    text: str, found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(text)
    assert "threshold" in refused(capsys, "threshold", found, tmp_path / "out", "--thresholds", file)
    assert not (tmp_path / "out").exists()


def test_thresholds_need_scores(
    found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("convert", found, tmp_path / "a.csv", "--to", "kaggle") == 0
    shutil.rmtree(found)
    file = tmp_path / "thresholds.json"
    file.write_text('{"ribosome": 0.65}')
    capsys.readouterr()
    said = refused(capsys, "threshold", tmp_path / "a.csv", tmp_path / "b.csv", "--thresholds", file)
    assert "its picks have no scores" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel-size", "0"], "the pixel size is 0.0"),
        (["--unbinned-size", "0", "1", "1"], "the unbinned size is"),
        (["--tomograms", "none.star"], "none.star: cannot be read"),
        (["--data", "nowhere"], "nowhere: does not exist"),
        (["--particles", "none.json"], "expected a copick config.json"),
    ],
)
def test_faulty_options(
    options: list[str], message: str, found: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "convert", found, tmp_path / "out", "--to", "relion5", *options)
    assert "does not exist" in refused(capsys, "convert", tmp_path / "none", tmp_path / "out", "--to", "csv")
    assert not (tmp_path / "out").exists()


def test_of_several_users_one_is_chosen(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for user, x in (("anna", 1.0), ("ben", 2.0)):
        picks = Picks(
            run="TS_1", types=CZII_TYPES[2:3], xyz_angstrom=np.full((1, 3), x), type_index=np.zeros(1, np.int64)
        )
        write_copick_picks(picks, tmp_path / "in", user_id=user, session_id="1")
    command = ["convert", tmp_path / "in", tmp_path / "a.csv", "--to", "csv"]
    assert "--picks-user and --picks-session" in refused(capsys, *command)
    assert run(*command, "--picks-user", "ben") == 0
    assert "TS_1,ribosome,2.0,2.0,2.0," in (tmp_path / "a.csv").read_text()
    assert "no picks" in refused(capsys, *command, "--picks-user", "carl")
    again = ["convert", tmp_path / "a.csv", tmp_path / "b.csv", "--to", "csv", "--picks-user", "ben"]
    assert "select picks of copick" in refused(capsys, *again)


def test_picks_of_another_programs_names_are_found_for_the_tomograms(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from jaxcryo.cli.geometry import read_given_picks
    from jaxcryo.cli.options import GeometryOptions
    from jaxcryo.domain import Run
    from jaxcryo.errors import InputError

    runs = [Run(name=f"TS_0{i}", volume_path=tmp_path / f"TS_0{i}.mrc") for i in (1, 2)]
    table = tmp_path / "a.csv"
    table.write_text("run,particle,x,y,z\nrec_TS_01,ribosome,1,2,3\nTS_02_10.00Apx,ribosome,1,2,3\n")
    given = read_given_picks(str(table), runs, CZII_TYPES, GeometryOptions(), None)
    assert list(given) == ["TS_01", "TS_02"] and "rec_TS_01" in capsys.readouterr().err
    table.write_text("run,particle,x,y,z\nPosition_7,ribosome,1,2,3\n")
    with pytest.raises(InputError, match=r"no picks of TS_01, TS_02; it has picks of Position_7"):
        read_given_picks(str(table), runs, CZII_TYPES, GeometryOptions(), None)
