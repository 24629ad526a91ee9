"""A training is one run however often it is cut off, and says what is wrong."""

import dataclasses
import json
import os
import pathlib
import signal

import jax
import jax.monitoring
import numpy as np
import pytest

from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.training import fit as fitting
from jaxcryo.training import loop, source
from jaxcryo.training.checkpoint import Checkpoints
from jaxcryo.training.device import with_parts
from jaxcryo.training.fit import Example, Length, Outcome, Start, TrainingStopped, fit
from jaxcryo.training.run_folder import RunDescription, RunFolder, read_description
from jaxcryo.training.source import source_of
from jaxcryo.weights import load_model


def train(folder: pathlib.Path, description: RunDescription, examples: list[Example], **options) -> Outcome:
    source = source_of(examples[1:], description.config, volumes=options.pop("volumes", "auto"))
    options = {"length": Length(steps=4), "say": lambda _: None, **options}
    return fit(source, examples[0], description, folder, **options)


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path, description, examples, monkeypatch) -> None:
    straight = train(tmp_path / "straight", description, examples)
    assert straight.result.step == 4

    read, calls = loop.Trainer._read, []

    def interrupt(self, n, metrics, bar):
        read(self, n, metrics, bar)
        calls.append(n)
        if n == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Trainer, "_read", interrupt)
    with pytest.raises(TrainingStopped, match=r"SIGTERM.*step 3"):
        train(tmp_path / "cut", description, examples)
    monkeypatch.undo()
    said: list[str] = []
    train(tmp_path / "cut", description, examples, say=said.append)
    assert "step 3 of 4" in said[0]

    a, b = (load_model(tmp_path / f / "last.safetensors") for f in ("straight", "cut"))
    assert all(np.array_equal(a.params[k], b.params[k]) for k in a.params)
    assert all(np.array_equal(a.stats[k], b.stats[k]) for k in a.stats)
    steps = [r.split(",")[0] for r in (tmp_path / "cut" / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2", "3", "4"]
    assert all(f.exists() for f in straight.files)
    assert {"report.html", "curves.png"} <= {f.name for f in straight.files}
    decided = with_parts(dataclasses.replace(description.config, precision="float32"), 1)
    assert read_description(RunFolder(tmp_path / "cut")) == dataclasses.replace(description, config=decided)

    other = dataclasses.replace(description, config=dataclasses.replace(description.config, seed=7))
    with pytest.raises(InputError, match=r"config\.seed.*42.*7"):
        train(tmp_path / "cut", other, examples)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_with_its_parts_and_place(tmp_path, description, examples) -> None:
    _, params, stats = build(description.config.model)
    params["head.bias"] = params["head.bias"] * np.nan
    expected = r"step 1.*nan.*nan.*nan.*PH_001.*z=\d+ y=\d+ x=\d+.*no checkpoint"
    with pytest.raises(TrainingStopped, match=expected):
        train(tmp_path / "nan", description, examples, start=Start(params=params, stats=stats))


@pytest.mark.slow
@pytest.mark.parametrize("validate_every", [1e-6, 100])
def test_the_state_of_a_step_is_kept_only_once_its_loss_is_known(
    tmp_path, description, examples, monkeypatch, validate_every
) -> None:
    """Every step is followed by a save; the third one's loss is not a number, and is read while the next one runs."""
    over_devices, calls = fitting.over_devices, []

    def broken_at_3(*args):
        run = over_devices(*args)

        def step(state, batch):
            state, metrics = run(state, batch)
            calls.append(metrics)
            return state, ({**metrics, "loss": metrics["loss"] * np.nan} if len(calls) == 3 else metrics)

        step.lower = run.lower
        return step

    monkeypatch.setattr(fitting, "over_devices", broken_at_3)
    kept = dataclasses.replace(
        description, config=dataclasses.replace(description.config, validate_every_epochs=validate_every)
    )
    with pytest.raises(TrainingStopped, match=r"step 3.*nan.*step 2"):
        train(tmp_path / "nan", kept, examples, save_every_seconds=0)
    with Checkpoints(RunFolder(tmp_path / "nan")) as checkpoints:
        assert checkpoints.latest_step() == 2
    rows = (tmp_path / "nan" / "metrics.csv").read_text().splitlines()
    assert [r.split(",")[0] for r in rows[1:]] == ["1", "2"]


@pytest.mark.slow
def test_a_finished_training_is_not_run_again(tmp_path, description, examples, monkeypatch) -> None:
    first = train(tmp_path, description, examples)
    monkeypatch.setattr(source, "collect", None)  # nothing is loaded
    again = train(tmp_path, description, examples)
    assert again.was_finished and not first.was_finished
    assert again.result == first.result
    monkeypatch.undo()
    (tmp_path / "best.safetensors").unlink()
    assert not train(tmp_path, description, examples).was_finished
    assert (tmp_path / "best.safetensors").exists()


@pytest.mark.slow
def test_nothing_is_compiled_again(tmp_path, description, examples) -> None:
    """After a step, a validation and a save of each kind, no more programs are made."""
    compiled: list[str] = []

    def count(event: str, _: float, **facts: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(facts))

    after: dict[int, int] = {}
    source = source_of(examples[1:], description.config)
    batch = source.batch

    def counting(n: int):
        after[n] = len(compiled)  # before step n, counted from 0
        return batch(n)

    often = dataclasses.replace(
        description, steps=8, config=dataclasses.replace(description.config, validate_every_epochs=1e-6)
    )
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(source, "batch", counting)
            fit(source, examples[0], often, tmp_path, length=Length(steps=8), say=len, save_every_seconds=0)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert after[1] > 0
    assert after[3] == len(compiled), compiled[after[3] :]


def test_description_that_is_damaged_is_refused(tmp_path, description, examples) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json"):
        train(tmp_path, description, examples)
    (tmp_path / "config.json").write_text(json.dumps({**description.to_json(), "fold": "x"}))
    with pytest.raises(InputError, match="fold"):
        train(tmp_path, description, examples)


@pytest.mark.slow
def test_minutes_end_in_time(tmp_path, description, examples) -> None:
    timed = dataclasses.replace(description, steps=None)
    outcome = train(tmp_path / "timed", timed, examples, length=Length(minutes=0.02))
    assert 1 <= outcome.result.step <= 3 * loop.REFIT_STEPS
