"""`train --labels partial` on a single tomogram, from marks or corrections, with known and new types."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import pytest

from jaxcryo.cli.train import main as train
from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.picks.corrections import Corrections, Decision, Region, write_corrections
from jaxcryo.picks.formats import format_of, write_picks
from jaxcryo.tomogram.volumes import write_ome_zarr
from jaxcryo.weights import load_model

SHAPE = (24, 72, 220)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Picks]:
    """A folder with a tomogram of noise, places in it, and a file of types of which one is new to everybody."""
    folder = tmp_path_factory.mktemp("one")
    rng = np.random.default_rng(1)
    write_ome_zarr(folder / "data" / "TS_1.zarr", rng.normal(size=SHAPE).astype(np.float32), (10.0,) * 3, levels=1)
    picks = Picks(
        run="TS_1",
        types=CZII_TYPES[:3],
        xyz_angstrom=rng.uniform(20, [2180, 700, 220], (30, 3)),
        type_index=np.arange(30) % 3,
    )
    (folder / "particles.toml").write_text(
        "[ribosome]\nradius_angstrom = 150\n[proteasome]\nradius_angstrom = 90\n[apo-ferritin]\nradius_angstrom = 60\n"
    )
    return folder, picks


def of(folder: pathlib.Path) -> list[object]:
    data = ["--data", folder / "data", "--particles", folder / "particles.toml"]
    return ["--arch", "tattaka", "--size", "tiny", *data, "--labels", "partial"]


def table(path: pathlib.Path, picks: Picks) -> pathlib.Path:
    lines = path.with_suffix(".csv")
    write_picks({"TS_1": picks}, lines, format_of("csv"), force=True)
    lines.write_text(lines.read_text().replace("beta-galactosidase", "proteasome"))
    return lines


@pytest.mark.slow
def test_a_single_tomogram_with_a_few_marks_is_enough(world, tmp_path, capsys) -> None:
    folder, picks = world
    marks = table(tmp_path / "marks", picks.select(np.arange(30) < 12))
    common = [*of(folder), "--steps", "3", "--batch", "2"]
    assert train([*map(str, [*common, "--picks", marks, "--from-scratch", "--out", tmp_path / "first"])]) == 0
    said = capsys.readouterr()
    assert "held out with" in said.err and "partial labels" in said.err and "weight 0.1" in said.err
    first = load_model(tmp_path / "first" / "last.safetensors")
    assert first.config.partial is not None and [t.name for t in first.types] == [
        "ribosome",
        "proteasome",
        "apo-ferritin",
    ]

    decisions = tuple(
        Decision(xyz_angstrom=(x, y, z), was=None, now="ribosome") for x, y, z in picks.of("ribosome").tolist()
    )
    wrong = Decision(xyz_angstrom=(300.0, 300.0, 100.0), was="apo-ferritin", now=None)
    write_corrections(tmp_path / "c.json", Corrections(run="TS_1", decisions=(*decisions, wrong)))
    start = ["--init", tmp_path / "first" / "last.safetensors", "--out", tmp_path / "second"]
    assert train([*map(str, [*common, "--corrections", tmp_path / "c.json", *start])]) == 0
    said = capsys.readouterr()
    assert re.search(r"\b1 [a-z ]*rejected", said.err)
    assert "tensors start from" in said.out
    whole = Region(low_xyz_angstrom=(-99.0,) * 3, high_xyz_angstrom=(9e3,) * 3)
    write_corrections(tmp_path / "c.json", Corrections(run="TS_1", decisions=(wrong,), complete=(whole,)))
    out = ["--out", tmp_path / "third"]
    assert train([*map(str, [*common, "--corrections", tmp_path / "c.json", *out])]) == 2
    assert "--picks" in capsys.readouterr().err


def test_what_cannot_be_is_refused_before_anything_is_computed(world, tmp_path, capsys) -> None:
    folder, picks = world
    common = [*of(folder), "--from-scratch", "--out", tmp_path / "none"]
    marks = table(tmp_path / "marks", picks)

    def refused(*more: object) -> str:
        assert train([*map(str, [*common, *more])]) == 2
        return capsys.readouterr().err

    assert "--volumes stream" in refused("--picks", marks, "--volumes", "stream")
    assert "TS_1" in refused("--picks", marks, "--fold", "1")
    bad = tmp_path / "c.json"
    bad.write_text(json.dumps({"kind": "jaxcryo corrections", "run": "TS_2"}))
    assert "TS_2" in refused("--picks", marks, "--corrections", bad)
    bad.write_text(json.dumps({"kind": "picks"}))
    assert "c.json" in refused("--picks", marks, "--corrections", bad)
    assert not (tmp_path / "none").exists()
