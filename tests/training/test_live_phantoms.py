"""Phantoms that come and go while a training runs: batches are functions of the step alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from spawned import SHAPE, crowded, marked

from jaxcryo.data.samples import draw_samples, sample_keys
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.phantom import DrawConfig
from jaxcryo.phantom.settings import ContentRanges
from jaxcryo.recipes import recipe
from jaxcryo.training.from_structures import for_structures, held_out_phantoms, phantom_source
from jaxcryo.training.live_phantoms import LiveConfig, PhantomSource

LIVE = LiveConfig(shape_zyx=SHAPE, at_hand=3, steps_each=2, most_picks=8)
CONFIG = for_structures(recipe("tattaka", "tiny"))


def source(config=CONFIG, live=LIVE) -> PhantomSource:
    return PhantomSource(marked, config, live, epoch_steps=10, about="marked")


def numbers(batch) -> set[int]:
    return set(np.unique(np.asarray(batch.windows)).astype(int).tolist())


@pytest.mark.slow
def test_phantoms_are_renewed_in_order() -> None:
    drawn = source()
    try:
        for step in range(9):
            first = step // LIVE.steps_each
            assert numbers(drawn.batch(step)) <= set(range(first, first + LIVE.at_hand))
    finally:
        drawn.close()


@pytest.mark.slow
def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    through, resumed = source(), source()
    try:
        for step in range(5):
            expected = through.batch(step)
        found = resumed.batch(4)
        for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(np.asarray(own), np.asarray(other))
    finally:
        through.close()
        resumed.close()


@pytest.mark.slow
def test_windows_are_those_that_the_step_chooses() -> None:
    """The places of the samples, found again within the step, are where the windows were cut."""
    drawn = source()
    try:
        batch = drawn.batch(3)
        one = jax.tree.map(lambda a: a[0], batch.collection)
        rows = jnp.asarray(batch.rows)[0]
        keys = sample_keys(jax.random.key(CONFIG.seed), 3, np.arange(len(rows)))
        windows, targets, places = draw_samples(
            one,
            rows,
            jnp.asarray(batch.windows)[0],
            keys=keys,
            patch_zyx=CONFIG.model.patch_zyx,
            sigma_voxel=sigmas_voxel(CZII_TYPES, CONFIG.target, 10.0),
            crop=CONFIG.crop,
            augmentation=dataclasses.replace(CONFIG.augment, intensity_probability=0.0),
            target=CONFIG.target,
        )
        for window, target, place in zip(np.asarray(windows), np.asarray(targets), np.asarray(places), strict=True):
            number = int(window.flat[0])
            assert number % LIVE.at_hand == place[0]
            # The particle lies at the middle of its phantom, which every window holds, in the channel of its number.
            assert target[number % 6].max() > 0.99
            assert np.delete(target, number % 6, axis=0).max() == 0
    finally:
        drawn.close()


@pytest.mark.slow
def test_too_many_particles_are_refused() -> None:
    drawn = PhantomSource(crowded, CONFIG, LIVE, epoch_steps=10, about="crowded")
    try:
        with pytest.raises(InputError, match="9 particles; at most 8"):
            drawn.batch(0)
    finally:
        drawn.close()


def test_phantoms_smaller_than_a_window_are_refused() -> None:
    with pytest.raises(InputError, match="smaller than a window"):
        PhantomSource(marked, CONFIG, dataclasses.replace(LIVE, shape_zyx=(8, 80, 80)), epoch_steps=1, about="small")


@pytest.mark.slow
def test_true_phantoms_are_normalized_and_never_the_held_out_ones() -> None:
    draw = DrawConfig(center_share=1.0)
    drawn = phantom_source(draw, CONFIG, dataclasses.replace(LIVE, at_hand=1, most_picks=256))
    try:
        windows = np.asarray(drawn.batch(0).windows)
    finally:
        drawn.close()
    assert abs(np.median(windows)) < 0.5
    assert 0.4 < np.subtract(*np.quantile(windows, (0.75, 0.25))) / 1.349 < 2
    one, two = held_out_phantoms(draw, CONFIG.seed, 2)
    assert one.volume.name != two.volume.name
    assert not np.array_equal(one.volume.voxels, two.volume.voxels)


@pytest.mark.slow
def test_the_phantom_that_validates_has_every_type_though_others_may_lack_it() -> None:
    draw = DrawConfig(contents=ContentRanges(absent=1.0))
    one, two = held_out_phantoms(draw, 7, 2)
    assert min(one.picks.counts().values()) > 0 and len(two.picks) == 0
