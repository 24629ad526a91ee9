"""A format from outside the package is a file with a `PickFormat` and one line: everything else knows it then."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.picks.copick_json import read_copick_folder, write_copick_picks
from jaxcryo.picks.formats import Geometries, PickFormat, Rows, detect, formats, picks_by_run, register, registry


def _read(path: pathlib.Path, types, geometries: Geometries, note) -> dict[str, Picks]:
    points = json.loads(path.read_text())["points"]
    names = [t.name for t in types]
    rows = Rows(
        where=str(path),
        runs=[p["run"] for p in points],
        xyz_angstrom=np.array([p["xyz"] for p in points], float).reshape(-1, 3),
        type_index=np.array([names.index(p["particle"]) for p in points]),
        score=np.array([p["score"] for p in points], float),
    )
    return picks_by_run(types, [rows], note)


def _encode(picks, path: pathlib.Path, geometries: Geometries) -> dict[pathlib.Path, str]:
    points = [
        {"run": run, "particle": own.types[k].name, "xyz": xyz, "score": score}
        for run, own in picks.items()
        for xyz, k, score in zip(own.xyz_angstrom.tolist(), own.type_index, own.score.tolist(), strict=True)
    ]
    return {path: json.dumps({"points": points})}


TOY = PickFormat(
    name="toy",
    title="the toy format",
    recognizes=lambda path: path.suffix == ".toy",
    read=_read,
    encode=_encode,
    suffix=".toy",
    in_angstrom=True,
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> PickFormat:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register(TOY)
    return TOY


def test_a_registered_format_converts_there_and_back(toy: PickFormat, tmp_path: pathlib.Path, capsys) -> None:
    from jaxcryo.cli.picks import main

    rng = np.random.default_rng(0)
    picks = Picks(
        run="TS_1",
        types=CZII_TYPES,
        xyz_angstrom=rng.uniform(0, 1000, (9, 3)),
        type_index=np.sort(rng.integers(0, 6, 9)),
        score=rng.uniform(size=9),
    )
    write_copick_picks(picks, tmp_path / "in")
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "a.toy")]) == 0  # by its suffix alone
    assert detect(tmp_path / "a.toy") is toy
    assert "the toy format" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "a.toy"), str(tmp_path / "back"), "--to", "copick"]) == 0
    again = read_copick_folder(tmp_path / "back", CZII_TYPES)["TS_1"]
    np.testing.assert_array_equal(again.xyz_angstrom, picks.xyz_angstrom)
    np.testing.assert_array_equal(again.type_index, picks.type_index)
    np.testing.assert_array_equal(again.score, picks.score)


def test_a_format_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_installed", lambda: {"toy": TOY})
    assert formats()["toy"] is TOY and formats()["csv"].name == "csv"
