"""infer.py leaves pages and candidates, and takes thresholds; napari opens what was found."""

from __future__ import annotations

import json
import pathlib
import re
import types as python_types
from typing import Any

import numpy as np
import pytest

from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.picks import main as picks_command
from jaxcryo.domain import CZII_TYPES, Picks
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.project.dataset import find_runs
from jaxcryo.tomogram.volumes import open_volume


def run(main: object, *args: object) -> int:
    assert callable(main)
    code: int = main([str(a) for a in args])
    return code


@pytest.fixture(scope="module")
def found(dataset: pathlib.Path, engines: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Picks at thresholds of 2: the heatmaps of networks that nobody has trained are not from 0 to 1."""
    out = tmp_path_factory.mktemp("found") / "picks"
    file = out.with_name("thresholds.json")
    file.write_text(json.dumps({t.name: 2.0 for t in CZII_TYPES}))
    command = ["--engines", engines, "--data", dataset, "--out", out, "--runs", "PH_000", "PT_000"]
    assert run(infer, *command, "--thresholds", file) == 0
    return out


def same(a: dict[str, Picks], b: dict[str, Picks]) -> None:
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name].xyz_angstrom, b[name].xyz_angstrom)
        np.testing.assert_array_equal(a[name].type_index, b[name].type_index)
        assert (a[name].score is None and len(a[name]) == 0) or np.array_equal(a[name].score, b[name].score)


def content_of(path: pathlib.Path) -> Any:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', path.read_text())
    assert found
    return json.loads(found[1])


def test_each_run_has_a_page_and_the_index_lists_them(found: pathlib.Path, dataset: pathlib.Path) -> None:
    index = (found / "reports" / "index.html").read_text()
    assert re.findall(r'href="([^"]*)"', index) == ["PH_000.html", "PT_000.html"]
    known, unknown = (content_of(found / "reports" / f"{name}.html") for name in ("PH_000", "PT_000"))
    assert known["known"]
    assert known["slices"]["count"] == known["grid"]["shape_zyx"][0]
    assert sum(len(r) for r in known["record"].values()) > 15
    settings = json.loads((found / "settings.json").read_text())
    for engine in settings["engines"]:
        assert known["record"][f"Network {engine['name']}"]["ONNX SHA-256"] == engine["onnx_sha256"]
    assert {t["name"]: t["threshold"] for t in unknown["types"]} == settings["thresholds"]


@pytest.mark.slow
def test_lower_thresholds_need_no_network(found, dataset, engines, tmp_path, capsys) -> None:
    """Picked anew from the candidates, or by the networks with these thresholds: the same picks."""
    used = json.loads((found / "settings.json").read_text())["thresholds"]
    file = tmp_path / "thresholds.json"
    lower = {"ribosome": 1.2, "thyroglobulin": 0.9, "apo-ferritin": 1.7, "beta-amylase": 3}
    file.write_text(json.dumps(lower))
    assert run(picks_command, "threshold", found, tmp_path / "anew", "--thresholds", file) == 0
    said = capsys.readouterr()
    assert "not saved" not in said.err
    before, anew = (read_copick_folder(f, CZII_TYPES) for f in (found, tmp_path / "anew"))
    assert sum(map(len, anew.values())) > sum(map(len, before.values()))
    command = ["--engines", engines, "--data", dataset, "--runs", "PH_000", "PT_000", "--no-report"]
    file.write_text(json.dumps(used | lower))
    assert run(infer, *command, "--out", tmp_path / "direct", "--thresholds", file) == 0
    same(anew, read_copick_folder(tmp_path / "direct", CZII_TYPES))
    assert json.loads((tmp_path / "direct" / "settings.json").read_text())["thresholds"] == used | lower
    assert not (tmp_path / "direct" / "reports").exists()
    file.write_text('{"ribosome": 0.01}')
    assert run(picks_command, "threshold", found, tmp_path / "lowest", "--thresholds", file) == 0
    assert "were not saved: ribosome (0.05); run 'jaxcryo infer' again" in capsys.readouterr().err


def test_other_thresholds_are_other_settings(found, dataset, engines, tmp_path, capsys) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text('{"ribosome": 0.1}')
    command = ["--engines", engines, "--data", dataset, "--out", found, "--thresholds", file]
    assert run(infer, *command) == 2
    assert "jaxcryo picks threshold" in capsys.readouterr().err
    file.write_text('{"ribosom": 0.1}')
    assert run(infer, *command[:-3], tmp_path / "none", "--thresholds", file) == 2
    assert "thresholds of ribosom; the types are apo-ferritin" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


class Viewer:
    """Stands for napari's; keeps what it is given."""

    made: list[Viewer] = []  # noqa: RUF012

    def __init__(self, title: str) -> None:
        self.title, self.images, self.points = title, [], []
        self.made.append(self)

    def add_image(self, data: Any, **options: Any) -> None:
        self.images.append((data, options))

    def add_points(self, data: Any, **options: Any) -> None:
        self.points.append((data, options))


def test_napari_opens_volumes_and_picks(found, dataset, engines, monkeypatch, capsys) -> None:
    shown: list[str] = []
    double = python_types.ModuleType("napari")
    vars(double).update(Viewer=Viewer, run=lambda: shown.append(Viewer.made[-1].title))
    monkeypatch.setattr(Viewer, "made", [])
    monkeypatch.setitem(__import__("sys").modules, "napari", double)
    thresholds = found.with_name("thresholds.json")
    command = ["--engines", engines, "--data", dataset, "--out", found, "--thresholds", thresholds]
    assert run(infer, *command, "--runs", "PH_000", "PT_000", "--view", "napari") == 0
    assert shown == ["PH_000", "PT_000"]
    picks = read_copick_folder(found, CZII_TYPES)
    for viewer in Viewer.made:
        (data, options), *none = viewer.images
        path = next(r.volume_path for r in find_runs(dataset) if r.name == viewer.title)
        volume = open_volume(path)
        np.testing.assert_array_equal(data[:], volume.voxels[:])
        assert not none and options["scale"] == volume.grid.spacing_zyx_angstrom
        low, high = options["contrast_limits"]
        assert low < high
        assert [o["name"] for _, o in viewer.points] == [t.name for t in CZII_TYPES]
        for index, (places, points) in enumerate(viewer.points):
            own = picks[viewer.title].of_type(index)
            np.testing.assert_allclose(np.multiply(places, volume.grid.spacing_zyx_angstrom)[:, ::-1], own)
            assert points["scale"] == volume.grid.spacing_zyx_angstrom
            assert points["size"] * volume.grid.spacing_angstrom == pytest.approx(2 * CZII_TYPES[index].radius_angstrom)
            assert len(points["features"]["score"]) == len(own)


def test_without_napari_nothing_is_computed(dataset, engines, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "napari", None)
    command = ["--engines", engines, "--data", dataset, "--out", tmp_path / "picks", "--view", "napari"]
    assert run(infer, *command) == 2
    said = capsys.readouterr()
    assert "pip install 'jaxcryo[napari]'" in said.err and not said.out
    assert not (tmp_path / "picks").exists()
