"""A run is done for the tomogram that its picks are of, and done again for another one of the same name."""

import json
import os
import pathlib

import pytest

from jaxcryo.cli.settings import FILE_NAME, runs_done
from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.picks.origin import Origin, write_origin

SETTINGS = {"thresholds": {"ribosome": 0.5}}


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
    (tmp_path / "picks" / FILE_NAME).write_text(json.dumps(SETTINGS))
    return runs


def test_another_tomogram_or_a_changed_one_is_done_again_and_said(tmp_path) -> None:
    runs, said = done_folder(tmp_path, "TS_1", "TS_2", "TS_3"), []
    assert runs_done(tmp_path / "picks", SETTINGS, runs, force=False, note=said.append) == {"TS_1", "TS_2", "TS_3"}
    assert said == []
    os.utime(runs[1].volume_path, ns=(0, 1))  # as one that was reconstructed again
    elsewhere = tmp_path / "data2" / "TS_3.mrc"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(b"other" * 5000)
    runs[2] = Run(name="TS_3", volume_path=elsewhere)
    assert runs_done(tmp_path / "picks", SETTINGS, runs, force=False, note=said.append) == {"TS_1"}
    assert [text.partition(":")[0] for text in said] == ["TS_2", "TS_3"]
    assert str(elsewhere) in said[1]


def test_settings_that_differ_or_are_damaged_are_refused(tmp_path) -> None:
    runs = done_folder(tmp_path, "TS_1")
    with pytest.raises(InputError, match="TS_1"):
        runs_done(tmp_path / "picks", {"thresholds": {"ribosome": 0.6}}, runs, force=False, note=print)
    (tmp_path / "picks" / FILE_NAME).write_text("[" * 100_000)
    with pytest.raises(InputError, match="TS_1"):
        runs_done(tmp_path / "picks", SETTINGS, runs, force=False, note=print)
