"""A run is done for the tomogram that its picks are of, and done again for another one of the same name."""

import dataclasses
import json
import os
import pathlib

import pytest

from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.picks.folder import ModelUsed, PicksFolder, Settings
from jaxcryo.picks.origin import Origin, write_origin

SETTINGS = Settings(thresholds={"ribosome": 0.5})


def done_folder(tmp_path: pathlib.Path, *names: str) -> list[Run]:
    """A folder of picks of some runs, and the runs."""
    runs = []
    for name in names:
        tomogram = tmp_path / "data" / f"{name}.mrc"
        tomogram.parent.mkdir(exist_ok=True)
        tomogram.write_bytes(name.encode() * 5000)
        folder = tmp_path / "picks" / "ExperimentRuns" / name
        (folder / "Picks").mkdir(parents=True)
        (folder / "Picks" / "jaxcryo_0_ribosome.json").write_text("{}")
        write_origin(folder, Origin.of(tomogram))
        runs.append(Run(name=name, volume_path=tomogram))
    PicksFolder(path=tmp_path / "picks").write_settings(SETTINGS)
    return runs


def test_another_tomogram_or_a_changed_one_is_done_again_and_said(tmp_path) -> None:
    runs, said = done_folder(tmp_path, "TS_1", "TS_2", "TS_3"), []
    assert PicksFolder(path=tmp_path / "picks").finished(SETTINGS, runs, note=said.append) == {"TS_1", "TS_2", "TS_3"}
    assert said == []
    os.utime(runs[1].volume_path, ns=(0, 1))  # as one that was reconstructed again
    elsewhere = tmp_path / "data2" / "TS_3.mrc"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"other" * 5000)
    runs[2] = Run(name="TS_3", volume_path=elsewhere)
    assert PicksFolder(path=tmp_path / "picks").finished(SETTINGS, runs, note=said.append) == {"TS_1"}
    assert [text.partition(":")[0] for text in said] == ["TS_2", "TS_3"]
    assert str(elsewhere) in said[1]


def test_settings_that_differ_or_are_damaged_are_refused(tmp_path) -> None:
    runs = done_folder(tmp_path, "TS_1")
    with pytest.raises(InputError, match="TS_1"):
        PicksFolder(path=tmp_path / "picks").finished(Settings(thresholds={"ribosome": 0.6}), runs, note=print)
    (tmp_path / "picks" / "settings.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="TS_1"):
        PicksFolder(path=tmp_path / "picks").finished(SETTINGS, runs, note=print)


def test_settings_come_back_and_folders_from_before_newer_options_are_the_same(tmp_path) -> None:
    used = ModelUsed(name="a", onnx_sha256="0", stride_zyx=(8, 48, 48), precision="float32", source="runs/a")
    particles = ({"name": "ribosome", "radius_angstrom": 150.0, "color": (0, 92, 255)},)
    settings = Settings(
        engines=(used,), thresholds={"ribosome": 0.5}, floor=0.05, particles=particles, merge_radius=0.7, refine=True
    )
    folder, runs = PicksFolder(path=tmp_path / "picks"), done_folder(tmp_path, "TS_1")
    folder.write_settings(settings)
    assert folder.is_of_inference() and folder.types()[0].color == (0, 92, 255)
    assert folder.finished(settings, runs, note=print) == {"TS_1"}
    plain = json.loads((folder.path / "settings.json").read_text())
    for newer in ("axes", "bytes", "mask"):
        del plain[newer]
    (folder.path / "settings.json").write_text(json.dumps(plain))
    assert folder.finished(settings, runs, note=print) == {"TS_1"}
    with pytest.raises(InputError, match="TS_1"):
        folder.finished(dataclasses.replace(settings, mask="/masks"), runs, note=print)


def test_files_of_others_are_not_replaced(tmp_path) -> None:
    folder = PicksFolder(path=tmp_path)
    folder.check_ours([tmp_path / "picks.csv"])
    (tmp_path / "picks.csv").write_text("mine")
    for text in (None, "[]", '{"a": 1}'):
        if text is not None:
            (tmp_path / "settings.json").write_text(text)
        with pytest.raises(InputError, match=r"picks\.csv"):
            folder.check_ours([tmp_path / "picks.csv"])
