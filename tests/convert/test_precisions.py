"""`convert check --bfloat16` and `--int8` measure what a precision costs and note it for inference."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from jaxcryo.cli.convert import main
from jaxcryo.cli.plan import DEMO_MODELS
from jaxcryo.convert import precisions
from jaxcryo.convert.precisions import compare_precisions, measured, phantoms_for, precision_rows, record
from jaxcryo.domain import Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.runtime.backends import choose_precision
from jaxcryo.runtime.manifest import Int8Model, ModelEntry, RunPrecision, read_manifest, write_manifest
from jaxcryo.runtime.openvino import cpu_described, cpu_has_bfloat16

SHAPE = (32, 160, 160)


@pytest.fixture
def engines(tmp_path: pathlib.Path) -> pathlib.Path:
    """The bundled network under two names, of which nothing was measured."""
    folder = pathlib.Path(shutil.copytree(DEMO_MODELS, tmp_path / "engines"))
    (bundled,) = read_manifest(folder)
    write_manifest(folder, [dataclasses.replace(bundled, name=n, bfloat16_f4_change=None) for n in ("one", "two")])
    return folder


@pytest.mark.slow
def test_trained_engines_pass_and_are_measured(engines: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", str(engines), "--windows", "1", "--bfloat16", "1", "--shape", *map(str, SHAPE)]
    if not cpu_has_bfloat16():
        assert main(command) == 2
        said = capsys.readouterr()
        assert "bfloat16" in said.err
        return
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "weighted F4" in said
    entries = read_manifest(engines)
    for entry in entries:
        assert entry.bfloat16_f4_change is not None and abs(entry.bfloat16_f4_change) < 0.5
        assert f"{entry.bfloat16_f4_change:+.4f}" in said
    write_manifest(engines, [dataclasses.replace(e, bfloat16_f4_change=0.0) for e in entries])
    chosen, _ = choose_precision("auto", "openvino", read_manifest(engines))
    assert {e.precision for e in chosen} == {"bfloat16"}


@pytest.fixture
def doubled(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Finds the share of the truth that stands under a precision."""
    shares = {"float32": 1.0, "bfloat16": 1.0, "int8": 1.0}
    truth = {}

    def make(config, *, seed: int, name: str) -> tuple[Volume, Picks]:
        n, kinds = 40, len(config.types)
        xyz = np.random.default_rng(seed).uniform(0, 1e5, (n * kinds, 3))
        indices = np.repeat(np.arange(kinds), n)
        truth[name] = Picks(run=name, types=config.types, xyz_angstrom=xyz, type_index=indices)
        return Volume(name=name, voxels=np.zeros((8, 8, 8), np.float32), grid=config.grid), truth[name]

    def find(volume: Volume, engines: list[str], types, *, config) -> Picks:
        picks = truth[volume.name]
        return picks.select(np.arange(len(picks)) % 40 < 40 * shares[engines[0]])

    monkeypatch.setattr(precisions, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(precisions, "make_phantom", make)
    monkeypatch.setattr(precisions, "open_model", lambda folder, entry, backend: entry.precision)
    monkeypatch.setattr(precisions, "find_picks", find)
    return shares


def compared(
    engines: pathlib.Path, entry: ModelEntry, precision: RunPrecision = "bfloat16"
) -> precisions.PrecisionComparison:
    return compare_precisions(engines, entry, phantoms_for(entry, 2, (8, 8, 8)), precision)


def test_the_change_is_that_of_the_score(engines: pathlib.Path, doubled: dict[str, float]) -> None:
    first, second = read_manifest(engines)
    same = compared(engines, first)
    assert same.change == 0 and same.verdict == "bfloat16 will be used"
    assert same.float32.picks == 2 * 40 * len(first.types)
    doubled["bfloat16"] = 0.5
    worse = compared(engines, first)
    # Half the recall at full precision: 17 · 0.5 / (16 + 0.5).
    assert worse.change == pytest.approx(17 * 0.5 / 16.5 - 1)
    assert worse.verdict == "float32 will be used"
    # Of 40 and 20 picks of a type, 20 are the same.
    assert (same.agreement, worse.agreement) == (1.0, pytest.approx(2 * 20 / 60))
    assert precision_rows([worse])[1][4] == f"{worse.change:+.4f}"
    changed = dataclasses.replace(first, bfloat16_f4_change=worse.change)
    record(engines, changed)
    assert read_manifest(engines) == (changed, second)


def test_int8_is_good_while_it_loses_little(engines: pathlib.Path, doubled: dict[str, float]) -> None:
    first, _ = read_manifest(engines)
    with pytest.raises(InputError, match=r"convert quantize"):
        compared(engines, first, "int8")
    int8 = Int8Model(
        onnx_file="a", onnx_sha256="0", calibrated_on="a test", f4_change=None, agreement=0.0, cpu="", speedup=0.0
    )
    first = dataclasses.replace(first, int8=int8)
    assert compared(engines, first, "int8").is_good
    doubled["int8"] = 0.95
    comparison = compared(engines, first, "int8")
    assert comparison.change == pytest.approx(17 * 0.95 / 16.95 - 1) and not comparison.is_good
    found = measured(int8, comparison, {"float32": 3.0, "bfloat16": 2.0, "int8": 1.0})
    assert (found.f4_change, found.agreement, found.speedup) == (comparison.change, comparison.agreement, 2.0)
    assert found.cpu == cpu_described()


def test_a_model_that_finds_nothing_says_nothing(engines: pathlib.Path, doubled: dict[str, float]) -> None:
    doubled.update(float32=0.0, bfloat16=0.0)
    first, _ = read_manifest(engines)
    comparison = compared(engines, first)
    assert comparison.change is None and "too little to tell" in comparison.verdict
    assert not comparison.is_good


def test_phantoms_are_the_same_each_time_and_of_the_models_particles(engines: pathlib.Path) -> None:
    entry, _ = read_manifest(engines)
    (first, picks), (again, _) = (next(phantoms_for(entry, 1, (16, 48, 48))) for _ in range(2))
    np.testing.assert_array_equal(first.load(), again.load())
    assert picks.types == entry.types and first.grid.spacing_angstrom == entry.spacing_angstrom


@pytest.mark.parametrize("option", ["--bfloat16", "--int8"])
def test_no_phantoms(engines: pathlib.Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(engines), option, "0"]) == 2
    assert option in capsys.readouterr().err


def test_models_without_int8_are_refused_before_anything_else(
    engines: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(engines), "--int8", "1"]) == 2
    assert "convert quantize" in capsys.readouterr().err
