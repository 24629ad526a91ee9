"""Dataset in, scored picks out: the commands as a user types them."""

import csv
import json
import pathlib

import numpy as np
import pytest
from scipy.spatial import KDTree

from jaxcryo.cli.convert import main as convert
from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.score import main as score
from jaxcryo.cli.train import main as train
from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.runtime.openvino import cpu_has_bfloat16
from jaxcryo.weights import load_model


@pytest.fixture(scope="module")
def run_folder(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "tattaka-tiny"
    command = ["--arch", "tattaka", "--fold", "1", "--data", str(dataset), "--size", "tiny", "--steps", "3"]
    assert train([*command, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_train_convert_infer_score(dataset, run_folder, tmp_path, capsys) -> None:
    assert load_model(run_folder / "best.safetensors").config.arch == "tattaka"
    assert convert(["onnx", str(run_folder), "--out", str(tmp_path / "out")]) == 0
    command = ["--engines", str(tmp_path / "out"), "--data", str(dataset), "--out", str(tmp_path / "picks")]
    assert infer([*command, "--runs", "PH_001"]) == 0
    said = capsys.readouterr().out
    for part in ("weighted F4", "threshold", "submission.csv", "PH_001.png", "ExperimentRuns"):
        assert part in said
    assert score([str(tmp_path / "picks"), str(dataset), "--runs", "PH_001", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["weighted_f4"] <= 1
    assert set(result["types"]) == {t.name for t in CZII_TYPES}
    assert result["types"]["ribosome"].keys() >= {"truth", "found", "precision", "recall", "f4"}


@pytest.mark.slow
def test_ensemble_writes_everything_and_goes_on_where_it_was(dataset, engines, tmp_path, capsys) -> None:
    out = tmp_path / "picks"
    command = ["--engines", str(engines), "--data", str(dataset), "--out", str(out)]
    assert infer([*command, "--runs", "PH_000"]) == 0
    assert infer(command) == 0
    said = capsys.readouterr().out
    assert "[1/3] PH_000: already done" in said and "[3/3] PT_000" in said
    found = read_copick_folder(out, CZII_TYPES)
    assert set(found) == {"PH_000", "PH_001", "PT_000"}
    rows = list(csv.DictReader((out / "submission.csv").read_text().splitlines()))
    assert len(rows) == sum(map(len, found.values()))
    assert set(rows[0]) == {"id", "experiment", "particle_type", "x", "y", "z"}
    assert all(p.score is not None or len(p) == 0 for p in found.values())
    assert (out / "pictures" / "PT_000.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_backends_and_precisions_agree(dataset, engines, tmp_path, capsys) -> None:
    def picked(name: str, *options: str) -> Picks:
        command = ["--engines", str(engines), "--data", str(dataset), "--out", str(tmp_path / name), *options]
        assert infer([*command, "--runs", "PT_000"]) == 0
        return read_copick_folder(tmp_path / name, CZII_TYPES)["PT_000"]

    flax = picked("flax", "--backend", "flax", "--no-refine")
    wide = picked("wide", "--backend", "openvino", "--no-refine")
    said = capsys.readouterr().out
    assert "by flax (as asked for) in float32" in said
    assert "by openvino (as asked for) in float32 (" in said  # nobody has compared
    assert len(wide) == len(flax) > 0
    np.testing.assert_allclose(wide.xyz_angstrom, flax.xyz_angstrom, atol=1e-3)
    np.testing.assert_allclose(wide.score, flax.score, atol=1e-3)
    if not cpu_has_bfloat16():
        return
    capsys.readouterr()
    flax, narrow = picked("refined", "--backend", "flax"), picked("narrow", "--precision", "bfloat16")
    assert "by openvino (the fastest on a CPU) in bfloat16 (as asked for)" in capsys.readouterr().out
    for kind in range(len(CZII_TYPES)):
        ours, theirs = (p.select(p.type_index == kind) for p in (narrow, flax))
        assert abs(len(ours) - len(theirs)) <= 0.1 * len(theirs) + 1
        if len(ours) and len(theirs):
            distance, nearest = KDTree(theirs.xyz_angstrom).query(ours.xyz_angstrom)
            near = distance < 1.5 * 10.012444
            assert near.mean() >= 0.9
            np.testing.assert_allclose(ours.score[near], theirs.score[nearest[near]], rtol=0.05)
    assert infer(["--engines", str(engines), "--data", str(dataset), "--out", str(tmp_path / "narrow"), "--precision",
                  "float32"]) == 2  # fmt: skip
    assert "different models or settings" in capsys.readouterr().err


def test_truth_scores_one(dataset, tmp_path, capsys) -> None:
    assert score([str(dataset / "train" / "overlay"), str(dataset), "--runs", "PH_000", "PH_001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weighted_f4"] == pytest.approx(1)


@pytest.mark.slow
def test_init_takes_what_fits(dataset, run_folder, tmp_path, capsys) -> None:
    config = tmp_path / "config.json"
    particles = [{"name": name, "is_particle": True, "radius": 150} for name in ("ribosome", "actin")]
    config.write_text(json.dumps({"pickable_objects": particles}))
    command = ["--arch", "tattaka", "--fold", "0", "--data", str(dataset), "--size", "tiny", "--steps", "1"]
    command += ["--init", str(run_folder / "best.safetensors"), "--particles", str(config)]
    command += ["--out", str(tmp_path / "r")]
    assert train(command) == 0
    said = capsys.readouterr().out
    assert "new types: actin" in said and "head" not in said
