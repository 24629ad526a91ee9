"""The second pass of an inference, over stored candidates."""

import dataclasses
import functools
import json
import pathlib
import pickle

import numpy as np
import pytest

from jaxcryo.cli.deciding import decide_runs, pick_for_aim, read_decision, said_of, write_decision
from jaxcryo.cli.picker import RunTask
from jaxcryo.cli.settling import Settling, open_settling
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picking.calibrate import calibrate
from jaxcryo.picks.candidates import write_candidates
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.runtime.workers import Listener
from jaxcryo.tomogram.volumes import Reading, write_ome_zarr

_TYPES = (ParticleType(name="large", radius_angstrom=150), ParticleType(name="small", radius_angstrom=60))


def _tomogram(name: str, seed: int) -> tuple[Picks, Picks]:
    rng = np.random.default_rng(seed)
    xyz = np.stack(np.meshgrid(*[np.arange(9) * 400.0] * 3), -1).reshape(-1, 3)[rng.permutation(729)]
    score = np.concatenate([0.7 + 0.1 * rng.normal(size=80), 0.05 + rng.exponential(0.08, 649)])
    index = np.arange(729) % 2
    candidates = Picks(run=name, types=_TYPES, xyz_angstrom=xyz, type_index=index, score=score)
    return candidates, dataclasses.replace(candidates.select(np.arange(80)), score=None)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for seed in (5, 6):
        write_candidates(_tomogram(f"run{seed}", seed)[0], tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_batch_is_decided_written_and_decided_anew(folder: pathlib.Path) -> None:
    candidates, truths = zip(*(_tomogram(f"r{s}", s) for s in range(3)), strict=True)
    calibration = calibrate(candidates, truths, _TYPES)
    runs = ["run5", "run6"]
    decided = decide_runs(
        folder, runs, _TYPES, calibration, aim="recall", given={"small": 0.6}, one_type_per_place=True
    )
    assert decided is not None
    decision, found = decided
    settling = Settling(out=folder, reading=Reading(), decision=decision)
    settle = pickle.loads(pickle.dumps(functools.partial(open_settling, settling)))()  # as for a worker
    listener = Listener(advance=lambda done, total: None, note=print)
    for run in runs:
        place = folder / "data" / f"{run}.zarr"
        write_ome_zarr(place, np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32), (100.0,) * 3)
        task = RunTask(run=Run(name=run, volume_path=place), label=run, truth=None)
        assert settle(task, listener) == len(found[run])
        assert (folder / "pictures" / f"{run}.png").is_file()
    told: list[str] = []
    gone = RunTask(run=Run(name="run5", volume_path=folder / "gone.zarr"), label="run5", truth=None)
    assert settle(gone, Listener(advance=lambda done, total: None, note=told.append)) == len(found["run5"])
    assert len(told) == 1 and "run5" in told[0] and "gone.zarr" in told[0]  # for want of a picture no pick is lost
    write_decision(folder, decision)
    assert decision.types[1].threshold == 0.6
    assert len(found["run5"]) > 70 and found["run5"].probability is not None
    written = read_copick_folder(folder, _TYPES)
    for run in runs:
        assert sorted(written[run].score.tolist()) == sorted(found[run].score.tolist())
    thresholds, stored = read_decision(folder) or ({}, None)
    assert stored == calibration
    assert thresholds == {t.name: t.threshold for t in decision.types}
    assert "from 2 tomograms" in said_of(decision, found)[0]
    strict, sure = pick_for_aim(folder, runs, _TYPES, "precision", {})
    assert strict.aim == "precision"
    assert strict.types[0].threshold >= decision.types[0].threshold
    assert all(p.probability is not None for p in sure.values())


def test_without_all_candidates_nothing_is_decided(folder: pathlib.Path) -> None:
    calibration = calibrate(*([p] for p in _tomogram("r", 0)), _TYPES)
    runs = ["run5", "absent"]
    assert decide_runs(folder, runs, _TYPES, calibration, aim="recall", given={}, one_type_per_place=True) is None
    assert read_decision(folder) is None
    with pytest.raises(InputError, match="calibrated"):
        pick_for_aim(folder, ["run5"], _TYPES, "balanced", {})


def test_a_damaged_decision_is_refused(folder: pathlib.Path) -> None:
    (folder / "decision.json").write_text(json.dumps({"thresholds": 3}))
    with pytest.raises(InputError, match=r"decision\.json"):
        read_decision(folder)
