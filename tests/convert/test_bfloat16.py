"""`python -m convert check --bfloat16` measures what bfloat16 costs and notes it for infer.py."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from jaxcryo.cli.convert import main
from jaxcryo.cli.plan import DEMO_MODELS
from jaxcryo.convert import bfloat16
from jaxcryo.convert.bfloat16 import compare_precisions, phantoms_for, precision_rows, record_changes
from jaxcryo.domain import Picks, Volume
from jaxcryo.runtime.backends import choose_precision
from jaxcryo.runtime.manifest import ModelEntry, read_manifest, write_manifest
from jaxcryo.runtime.openvino import cpu_has_bfloat16

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
    shares = {"float32": 1.0, "bfloat16": 1.0}
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

    monkeypatch.setattr(bfloat16, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(bfloat16, "make_phantom", make)
    monkeypatch.setattr(bfloat16, "open_model", lambda folder, entry, backend: entry.precision)
    monkeypatch.setattr(bfloat16, "find_picks", find)
    return shares


def compared(engines: pathlib.Path, entry: ModelEntry) -> bfloat16.PrecisionComparison:
    return compare_precisions(engines, entry, phantoms_for(entry, 2, (8, 8, 8)))


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
    assert precision_rows([worse])[1][3] == f"{worse.change:+.4f}"
    record_changes(engines, [worse])
    changed, untouched = read_manifest(engines)
    assert changed == dataclasses.replace(first, bfloat16_f4_change=worse.change)
    assert untouched == second


def test_a_model_that_finds_nothing_says_nothing(engines: pathlib.Path, doubled: dict[str, float]) -> None:
    doubled.update(float32=0.0, bfloat16=0.0)
    first, _ = read_manifest(engines)
    comparison = compared(engines, first)
    assert comparison.change is None and "too little to tell" in comparison.verdict
    record_changes(engines, [comparison])
    assert read_manifest(engines)[0].bfloat16_f4_change is None


def test_phantoms_are_the_same_each_time_and_of_the_models_particles(engines: pathlib.Path) -> None:
    entry, _ = read_manifest(engines)
    (first, picks), (again, _) = (next(phantoms_for(entry, 1, (16, 48, 48))) for _ in range(2))
    np.testing.assert_array_equal(first.load(), again.load())
    assert picks.types == entry.types and first.grid.spacing_angstrom == entry.spacing_angstrom


def test_no_phantoms(engines: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(engines), "--bfloat16", "0"]) == 2
    assert "--bfloat16" in capsys.readouterr().err
