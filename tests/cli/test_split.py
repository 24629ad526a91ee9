"""Tomograms shared out in ranges of slices: the picks of the whole, and what is done of them is not done again."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest

from jaxcryo.cli import picker
from jaxcryo.cli.infer import main as infer
from jaxcryo.cli.parts import Part, Parts, remove_parts
from jaxcryo.cli.picker import RangeTask, RunTask, SurveyTask
from jaxcryo.cli.steps import advance_of_runs, outcomes_of_runs, steps_of
from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.picking.peaks import Peaks
from jaxcryo.picks.folder import Settings
from jaxcryo.picks.origin import Origin
from jaxcryo.runtime.workers import Outcome
from jaxcryo.tomogram.statistics import Statistics, Survey


def run(dataset: pathlib.Path, models: pathlib.Path, out: pathlib.Path, *options: str) -> int:
    command = ["--engines", str(models), "--data", str(dataset), "--out", str(out), "--runs", "PH_000"]
    return infer([*command, *options])


def check_same(out: pathlib.Path, alone: pathlib.Path) -> None:
    """All that is known of the picks, to the last bit, and the heatmaps of the page."""
    names = sorted(p.relative_to(alone) for p in alone.rglob("*") if p.suffix in (".csv", ".json"))
    assert sorted(p.relative_to(out) for p in out.rglob("*") if p.suffix in (".csv", ".json")) == names
    for name in names:
        assert (out / name).read_bytes() == (alone / name).read_bytes(), name
    mine, other = ((folder / "reports" / "PH_000.html").read_text() for folder in (out, alone))
    heat = re.compile(r'id="heat-\d+">[^<]*<')
    assert heat.findall(mine) == heat.findall(other) != []
    assert len(json.loads((out / "ExperimentRuns/PH_000/Picks/jaxcryo_0_ribosome.json").read_text())["points"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--voxel-spacing", "8")], ids=["as it is", "resampled"])
def test_ranges_in_one_process_are_the_whole(dataset, engines, tmp_path, options) -> None:
    assert run(dataset, engines, tmp_path / "alone", *options) == 0
    assert run(dataset, engines, tmp_path / "split", *options, "--split-z", "3") == 0
    check_same(tmp_path / "split", tmp_path / "alone")


@pytest.mark.slow
def test_what_is_done_of_a_run_is_not_done_again(dataset, one_model, tmp_path, capsys, monkeypatch) -> None:
    out, done = tmp_path / "split", list[tuple[int, int]]()
    search, damaged = picker.peaks_of_slices, [(8, 16)]

    def peaks_of_slices(volume, models, types, slices, **options):
        if slices in damaged:
            raise InputError("a damaged chunk")
        done.append(slices)
        return search(volume, models, types, slices, **options)

    monkeypatch.setattr(picker, "peaks_of_slices", peaks_of_slices)
    options = ("--split-z", "3", "--no-report", "--effort", "fast")
    assert run(dataset, one_model, out, *options) == 1
    said = capsys.readouterr().err
    assert said.count("a damaged chunk") == 2 and "PH_000" in said  # when it happens, and at the end
    assert done == [(0, 8), (16, 32)]
    monkeypatch.setattr(picker, "surveyed", None)  # the tomogram is not gone through again
    damaged.clear()
    assert run(dataset, one_model, out, *options) == 0
    assert done == [(0, 8), (16, 32), (8, 16)]
    assert not (out / "parts").exists()


SETTINGS = Settings(thresholds={"ribosome": 0.5})
ORIGIN = Origin(path="/data/TS_1.mrc", bytes=9, modified_ns=8, sample="abc")
SURVEY = Survey(
    statistics=Statistics(voxels=9, count=7, mean=1 / 3, std=1e-7, median=-0.1, deviation=2.0, skewness=0.0),
    filling=((3, (0.10000000149011612, 7.0)), (5, (0.0,))),
)


def parts_of(out: pathlib.Path, settings: Settings = SETTINGS, origin: Origin = ORIGIN, **options: int) -> Parts:
    return Parts.of(out, "TS_1", settings, origin, **({"count": 2, "pages": True} | options))


def test_parts_come_back_and_damaged_ones_are_named(tmp_path) -> None:
    random = np.random.default_rng(0)
    peaks = Peaks(
        zyx_voxel=random.integers(0, 99, (5, 3)),
        offset_zyx_voxel=random.normal(size=(5, 3)),
        type_index=random.integers(0, 3, 5),
        score=random.normal(size=5),
    )
    parts = parts_of(tmp_path)
    for pngs in ((), (b"one", b"", b"three")):
        parts.write((8, 16), Part(peaks=peaks, pngs=pngs, seconds=1.5))
        found = parts.read((8, 16))
        assert found.pngs == pngs and found.seconds == 1.5
        for field in dataclasses.fields(Peaks):
            np.testing.assert_array_equal(getattr(found.peaks, field.name), getattr(peaks, field.name))
    parts.write_surveys([SURVEY, SURVEY])
    assert parts.surveys() == (SURVEY, SURVEY)
    with pytest.raises(InputError, match="slices-0-7"):
        parts.read((0, 8))
    (file,) = tmp_path.rglob("slices-8-15.npz")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="slices-8-15"):
        parts.read((8, 16))
    remove_parts(tmp_path, "TS_1")
    assert not list(tmp_path.iterdir())


def test_parts_made_otherwise_are_not_those(tmp_path) -> None:
    parts_of(tmp_path).write_surveys([SURVEY])
    moved = dataclasses.replace(ORIGIN, path="/elsewhere/TS_1.mrc")
    assert parts_of(tmp_path, origin=moved).has_surveys()
    mask = tmp_path / "mask.mrc"
    masked = Settings(thresholds={"ribosome": 0.5}, mask=str(mask))
    mask.write_bytes(b"before")
    parts_of(tmp_path, settings=masked).write_surveys([SURVEY])
    assert parts_of(tmp_path, settings=masked).has_surveys()
    mask.write_bytes(b"changed")
    for other in (
        parts_of(tmp_path, settings=masked),
        parts_of(tmp_path, settings=Settings(thresholds={"ribosome": 0.5}, tta=True)),
        parts_of(tmp_path, origin=dataclasses.replace(ORIGIN, modified_ns=9)),
        parts_of(tmp_path, count=3),
        parts_of(tmp_path, pages=False),
    ):
        assert not other.has_surveys()


def task(name: str, ranges: int) -> RunTask:
    return RunTask(run=Run(name=name, volume_path=pathlib.Path(name)), label=name, truth=None, ranges=ranges)


def test_a_run_is_shared_out_in_steps_that_come_after_each_other() -> None:
    steps = steps_of([task("a", 2), task("b", 1)])
    assert [(type(step.task), step.run, step.after) for step in steps] == [
        (SurveyTask, 0, ()),
        (RangeTask, 0, (0,)),
        (RangeTask, 0, (0,)),
        (RunTask, 0, (0, 1, 2)),
        (RunTask, 1, ()),
    ]
    assert sum(step.share for step in steps if isinstance(step.task, RangeTask)) == 1


def test_the_progress_of_a_run_is_that_of_its_ranges() -> None:
    seen: list[tuple[int, float]] = []
    steps = steps_of([task("a", 1), task("b", 4)])
    advance = advance_of_runs(steps, lambda run, done, total: seen.append((run, done / total)))
    advance(0, 1, 2)
    for index, done in ((2, 8), (3, 10), (2, 10), (4, 10), (5, 10)):
        advance(index, done, 10)
    assert seen == [(0, 0.5), (1, 0.2), (1, 0.45), (1, 0.5), (1, 0.75), (1, 1.0)]


def test_a_run_has_one_outcome() -> None:
    steps = steps_of([task("a", 2), task("b", 2)])
    failures = ["", "first", "", "second", "", "", "", ""]
    result = object()
    outcomes = [Outcome(index=i, failure=f, result=result if i == 7 else None) for i, f in enumerate(failures)]
    assert list(outcomes_of_runs(steps, outcomes)) == [  # type: ignore[arg-type]
        Outcome(index=0, failure="first"),
        Outcome(index=1, result=result),
    ]


@pytest.mark.parametrize("options", [("--split-z", "0"), ("--split-z", "2", "--save-heatmaps")])
def test_what_cannot_be_shared_out(dataset, one_model, tmp_path, capsys, options) -> None:
    assert run(dataset, one_model, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err
    assert all(option in said for option in options if option.startswith("--"))
    assert not (tmp_path / "out").exists()
