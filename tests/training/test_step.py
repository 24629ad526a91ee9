"""The step: the same on any number of devices and parts, robust against numbers that are not finite."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcryo.config import TrainConfig
from jaxcryo.data.collection import Collection, collect, epoch_grid, rows_of_step
from jaxcryo.data.samples import Batch, choose_windows, cut_windows, sample_keys
from jaxcryo.data.streaming import StreamedWindows
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.training.source import Example
from jaxcryo.training.state import TrainState, initial_state
from jaxcryo.training.step import AXIS, first_copy, over_devices, replicate


def run(
    config: TrainConfig, examples: list[Example], devices: int, steps: int = 3, broken: bool = False
) -> tuple[TrainState, list[float], np.ndarray]:
    """The state after some steps, the losses, and where the last samples were cut."""
    chosen = jax.local_devices()[:devices]
    assert len(chosen) == devices
    collection: Collection = collect(
        [e.volume for e in examples], [e.picks for e in examples], config.intensity, config.model.patch_zyx
    )
    if broken:
        collection = dataclasses.replace(collection, volumes=collection.volumes * np.nan)
    grid = epoch_grid([e.volume.grid.shape_zyx for e in examples], config.model.patch_zyx, config.crop)
    network, params, stats = build(config.model, batch_axis=AXIS if config.sync_batch_norm else None)
    half = config.precision == "float16"
    state = replicate(initial_state(params, stats, total_steps=20, config=config.optim, half_precision=half), chosen)
    types = examples[0].picks.types
    step = over_devices(network, config, sigmas_voxel(types, config.target, 10.0), chosen)
    shared, losses = replicate(collection, chosen), []
    for n in range(steps):
        rows = rows_of_step(grid, seed=0, step=n, batch=config.optim.batch).reshape(devices, -1, 4)
        state, metrics = step(state, Batch(collection=shared, rows=rows))
        losses.append(float(metrics["loss"][0]))
    return first_copy(state), losses, np.asarray(metrics["place"]).reshape(-1, 4)


@pytest.fixture(scope="module")
def synced(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, sync_batch_norm=True)


@pytest.fixture(scope="module")
def single(synced: TrainConfig, examples: list[Example]) -> tuple[TrainState, list[float], np.ndarray]:
    return run(synced, examples, devices=1)


@pytest.mark.slow
def test_two_devices_train_as_one(synced, examples, single) -> None:
    state, losses, places = run(synced, examples, devices=2)
    np.testing.assert_array_equal(places, single[2])
    np.testing.assert_allclose(losses, single[1], rtol=1e-4)
    for name, value in single[0].ema_params.items():
        np.testing.assert_allclose(state.ema_params[name], value, atol=2e-3, err_msg=name)
    for name, value in single[0].stats.items():
        np.testing.assert_allclose(state.stats[name], value, rtol=2e-2, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_learning_moves_everything(synced, single) -> None:
    _, params, stats = build(synced.model)
    state = single[0]
    still = [k for k in params if np.array_equal(params[k], state.params[k])]
    assert still == []
    assert all(not np.array_equal(stats[k], state.stats[k]) for k in stats)
    assert all(not np.array_equal(state.params[k], state.ema_params[k]) for k in params)


@pytest.mark.slow
def test_accumulated_parts_see_the_same_samples(config, examples, single) -> None:
    parts = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=2))
    state, losses, _ = run(parts, examples, devices=1, steps=1)
    assert int(state.step) == 1
    assert losses[0] == pytest.approx(single[1][0], rel=0.2)  # BatchNorm sees one part at a time


@pytest.mark.slow
def test_gradients_that_are_not_finite_move_nothing(config, examples) -> None:
    half = dataclasses.replace(config, precision="float16")
    state, losses, _ = run(half, examples, devices=1, steps=1, broken=True)
    _, params, _ = build(config.model)
    assert not np.isfinite(losses[0])
    assert all(np.array_equal(params[k], state.params[k]) for k in params)
    assert float(state.loss_scale.scale) == 2.0**14
    assert int(state.step) == 1


def test_a_batch_that_does_not_divide_is_refused(config) -> None:
    odd = dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch=3))
    network, _, _ = build(config.model, seed=None)
    with pytest.raises(InputError, match="batch of 3"):
        over_devices(network, odd, np.ones(3, np.float32), jax.local_devices()[:2])


@pytest.mark.slow
def test_windows_cut_from_files_are_those_cut_on_the_device(config, examples) -> None:
    volumes, picks = [e.volume for e in examples], [e.picks for e in examples]
    patch = config.model.patch_zyx
    grid = epoch_grid([v.grid.shape_zyx for v in volumes], patch, config.crop)

    def rows(n: int) -> np.ndarray:
        return rows_of_step(grid, seed=0, step=n, batch=4)

    collection = collect(volumes, picks, config.intensity, patch)
    key = jax.random.key(config.seed)
    stream = StreamedWindows(
        volumes, dataclasses.replace(collection, volumes=None), rows, np.arange(4), key=key,
        patch_zyx=patch, crop=config.crop, intensity=config.intensity,
    )  # fmt: skip
    for n in (2, 3, 7, 3):  # in order or not
        keys = sample_keys(key, n, np.arange(4))
        places = choose_windows(collection, rows(n), keys=keys, patch_zyx=patch, config=config.crop)
        np.testing.assert_array_equal(stream.of_step(n), cut_windows(collection.volumes, places, patch))
    stream.close()


@pytest.mark.slow
def test_rematerialized_gradients_are_the_same(config) -> None:
    windows = jax.random.normal(jax.random.key(0), (2, *config.model.patch_zyx))

    def gradient(rematerialize: bool):
        network, params, stats = build(config.model, rematerialize=rematerialize)

        def value(p):
            heatmaps, moved = network.apply_train(p, stats, windows)
            return (heatmaps**2).mean(), moved

        return jax.jit(jax.grad(value, has_aux=True))(params)

    (plain, moved), (again, moved_again) = gradient(False), gradient(True)
    for k in plain:
        np.testing.assert_allclose(plain[k], again[k], rtol=1e-3, atol=1e-5, err_msg=k)
    for k in moved:
        np.testing.assert_allclose(moved[k], moved_again[k], rtol=1e-4, atol=1e-6)
