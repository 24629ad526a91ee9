"""A training is one run however often it is cut off, and says what is wrong."""

import dataclasses
import json
import os
import pathlib
import signal

import numpy as np
import pytest

from jaxcryo.config import TrainConfig
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.training import loop, trainer
from jaxcryo.training.checkpoint import RunDescription, read_description
from jaxcryo.training.loop import Example, Length, TrainingStopped, fit
from jaxcryo.weights import load_model


@pytest.fixture(scope="module")
def description(config: TrainConfig, examples: list[Example]) -> RunDescription:
    return RunDescription(
        config=config,
        types=examples[0].picks.types,
        fold=0,
        train_runs=("PH_001",),
        held_out="PH_000",
        spacing_angstrom=10.0,
        steps=4,
    )


def train(folder: pathlib.Path, description: RunDescription, examples: list[Example], **options) -> loop.Outcome:
    return fit(examples[1:], examples[0], description, folder, length=Length(steps=4), say=lambda _: None, **options)


def test_resumed_equals_uninterrupted(tmp_path, description, examples, monkeypatch) -> None:
    straight = train(tmp_path / "straight", description, examples)
    assert straight.result.step == 4

    read, calls = trainer.Trainer._read, []

    def interrupt(self, n, metrics, bar):
        read(self, n, metrics, bar)
        calls.append(n)
        if n == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer.Trainer, "_read", interrupt)
    with pytest.raises(TrainingStopped, match="SIGTERM came: step 3 is saved"):
        train(tmp_path / "cut", description, examples)
    monkeypatch.undo()
    said: list[str] = []
    fit(examples[1:], examples[0], description, tmp_path / "cut", length=Length(steps=4), say=said.append)
    assert "after step 3 of 4" in said[0]

    a, b = (load_model(tmp_path / f / "last.safetensors") for f in ("straight", "cut"))
    assert all(np.array_equal(a.params[k], b.params[k]) for k in a.params)
    assert all(np.array_equal(a.stats[k], b.stats[k]) for k in a.stats)
    steps = [r.split(",")[0] for r in (tmp_path / "cut" / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4"]
    assert all(f.exists() for f in straight.files)
    assert read_description(tmp_path / "cut") == description

    other = dataclasses.replace(description, config=dataclasses.replace(description.config, seed=7))
    with pytest.raises(InputError, match=r"config.seed: 42 there, 7 now"):
        train(tmp_path / "cut", other, examples)


def test_a_loss_that_is_not_a_number_stops_with_the_place(tmp_path, description, examples) -> None:
    _, params, stats = build(description.config.model)
    params["head.bias"] = params["head.bias"] * np.nan
    with pytest.raises(TrainingStopped, match=r"loss of step 1 is nan.*cut from PH_001 at voxel z=\d+ y=\d+ x=\d+"):
        train(tmp_path / "nan", description, examples, initial=(params, stats))


def test_description_that_is_damaged_is_refused(tmp_path, description, examples) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        train(tmp_path, description, examples)
    (tmp_path / "config.json").write_text(json.dumps({**description.to_json(), "fold": "x"}))
    with pytest.raises(InputError, match="fold"):
        train(tmp_path, description, examples)


def test_minutes_end_in_time(tmp_path, description, examples) -> None:
    timed = dataclasses.replace(description, steps=None)
    outcome = fit(examples[1:], examples[0], timed, tmp_path / "timed", length=Length(minutes=0.02), say=lambda _: None)
    assert 1 <= outcome.result.step <= 3 * trainer.REFIT_STEPS
