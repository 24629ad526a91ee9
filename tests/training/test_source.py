"""Any source of batches can be trained on, and a training on it is one run however often it is cut off."""

import dataclasses
import os
import signal

import jax
import jax.monitoring
import numpy as np
import pytest

from jaxcryo.config import TrainConfig
from jaxcryo.data.samples import Batch
from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.training.fit import Length, TrainingStopped, fit
from jaxcryo.training.source import Example, ResidentSource, StreamedSource, at_one_spacing, source_of
from jaxcryo.weights import load_model


class Renewed:
    """Another tomogram at every step, which a source of phantoms would make meanwhile."""

    epoch_steps = 2
    about = "renewed tomograms"

    def __init__(self, examples: list[Example], config: TrainConfig, stop_after: int | None = None) -> None:
        self._sources = [ResidentSource([e], config) for e in examples]
        self._stop_after, self.asked, self.closed = stop_after, [], False

    def batch(self, step: int) -> Batch:
        self.asked.append(step)
        if step == self._stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return self._sources[step % 2].batch(step)

    def run_name(self, step: int, run: int) -> str:
        return self._sources[step % 2].run_name(step, run)

    def close(self) -> None:
        self.closed = True


@pytest.mark.slow
def test_a_source_that_renews_its_tomograms_is_resumed_where_it_was(tmp_path, description, examples) -> None:
    def train(name: str, source: Renewed) -> None:
        fit(source, examples[0], description, tmp_path / name, length=Length(steps=4), say=lambda _: None)

    # Both have as many picks, as a source that pads would give them.
    count = min(len(e.picks) for e in examples)
    cut = [dataclasses.replace(e, picks=e.picks.select(np.arange(count))) for e in examples]
    straight = Renewed(cut, description.config)
    train("straight", straight)
    assert straight.asked == [0, 1, 2, 3] and straight.closed
    with pytest.raises(TrainingStopped, match="SIGTERM"):
        train("cut", Renewed(cut, description.config, stop_after=1))
    rest = Renewed(cut, description.config)
    train("cut", rest)
    assert rest.asked == [2, 3]
    a, b = (load_model(tmp_path / name / "last.safetensors") for name in ("straight", "cut"))
    assert all(np.array_equal(a.params[k], b.params[k]) for k in a.params)


def test_both_sources_give_one_batch_at_any_step(description, examples) -> None:
    resident, streamed = (source_of(examples, description.config, volumes=v) for v in ("device", "stream"))
    assert isinstance(streamed, StreamedSource) and resident.epoch_steps == streamed.epoch_steps
    for step in (5, 0):
        a, b = resident.batch(step), streamed.batch(step)
        np.testing.assert_array_equal(a.rows, b.rows)
        assert a.windows is None and b.windows is not None
        assert b.windows.shape == (jax.local_device_count(), 2, *description.config.model.patch_zyx)
    streamed.close()


def test_tomograms_of_other_spacings_are_resampled_and_said(examples) -> None:
    def spaced(example: Example, name: str, spacing: float) -> Example:
        grid = VoxelGrid(shape_zyx=example.volume.grid.shape_zyx, spacing_zyx_angstrom=(spacing,) * 3)
        return dataclasses.replace(example, volume=Volume(name=name, voxels=example.volume.voxels, grid=grid))

    notes: list[str] = []
    given = [spaced(examples[0], name, s) for name, s in (("a", 10.0), ("b", 10.1), ("c", 5.0))]
    fitted = at_one_spacing(given, notes.append)
    assert [e.volume.grid.shape_zyx for e in fitted[:2]] == [e.volume.grid.shape_zyx for e in given[:2]]
    assert fitted[2].volume.grid.spacing_zyx_angstrom == (10.0,) * 3
    assert fitted[2].volume.grid.shape_zyx == tuple(n // 2 for n in given[2].volume.grid.shape_zyx)
    assert len(notes) == 1 and "c:" in notes[0] and "5.000" in notes[0] and "10.000" in notes[0]


def test_what_a_validation_would_refuse_is_refused_before_step_1(tmp_path, description, examples) -> None:
    thin = Volume(
        name="thin",
        voxels=np.zeros((2, 48, 64), np.float32),
        grid=VoxelGrid(shape_zyx=(2, 48, 64), spacing_zyx_angstrom=(10.0,) * 3),
    )
    source = Renewed(examples, description.config)
    held_out = dataclasses.replace(examples[0], volume=thin)
    with pytest.raises(InputError, match=r"thin.*held-out"):
        fit(source, held_out, description, tmp_path, length=Length(steps=1), say=lambda _: None)
    assert source.asked == [] and not list(tmp_path.iterdir())
