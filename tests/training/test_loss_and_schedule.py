"""Losses as the paper's equations, the schedule as its tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcryo.config import LossConfig, OptimConfig
from jaxcryo.recipes import recipe
from jaxcryo.training.loss import loss
from jaxcryo.training.schedule import learning_rate

RNG = np.random.default_rng(0)
P, Y = RNG.normal(size=(4, 2, 3, 5, 5)), RNG.uniform(size=(4, 2, 3, 5, 5)) ** 4


def test_weighted_is_equation_1() -> None:
    expected = np.mean((P - Y) ** 2 * (Y + 0.1))
    assert float(loss(jnp.asarray(P), jnp.asarray(Y), LossConfig())) == pytest.approx(expected, rel=1e-5)


def test_balanced_is_equation_2() -> None:
    mse = (P - Y) ** 2
    expected = (mse * Y).sum() / (Y.sum() + 1e-6) + (mse * (1 - Y)).sum() / ((1 - Y).sum() + 1e-6)
    value = loss(jnp.asarray(P), jnp.asarray(Y), LossConfig(kind="balanced"))
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["weighted", "balanced"])
def test_mean_over_devices_is_the_joint_batch_s(kind) -> None:
    config = LossConfig(kind=kind)
    parts = jax.pmap(lambda p, y: jax.lax.pmean(loss(p, y, config, axis="d"), "d"), axis_name="d")(
        jnp.asarray(P.reshape(2, 2, *P.shape[1:])), jnp.asarray(Y.reshape(2, 2, *Y.shape[1:]))
    )
    assert float(parts[0]) == pytest.approx(float(loss(jnp.asarray(P), jnp.asarray(Y), config)), rel=1e-5)


def test_schedule_rises_from_zero_and_falls_to_zero() -> None:
    config = OptimConfig()
    rates = np.asarray(learning_rate(np.arange(640), 640, config))
    assert rates[0] == 0
    np.testing.assert_allclose(rates[:40], 1e-3 * np.arange(40) / 40, rtol=1e-5)
    np.testing.assert_allclose(rates[40:], 5e-4 * (1 + np.cos(np.pi * np.arange(40, 640) / 640)), rtol=1e-4, atol=1e-9)
    assert rates[-1] < 1e-7


def test_a_shorter_training_has_the_same_curve() -> None:
    config = OptimConfig()
    long, short = (np.asarray(learning_rate(np.arange(0, n, n // 64), n, config)) for n in (6400, 640))
    np.testing.assert_allclose(long, short, rtol=1e-4, atol=1e-10)


def test_recipes_are_the_paper_s_tables() -> None:
    yu4u, tattaka = recipe("yu4u"), recipe("tattaka")
    assert (yu4u.optim.epochs, yu4u.optim.warmup_epochs, yu4u.optim.weight_decay) == (64, 4, 0)
    assert (tattaka.optim.epochs, tattaka.optim.warmup_epochs, tattaka.optim.weight_decay) == (25, 5, 1e-2)
    for config in (yu4u, tattaka):
        optim = config.optim
        assert (optim.learning_rate, optim.batch, optim.ema_decay) == (1e-3, 32, 0.999)
    assert (yu4u.loss.kind, yu4u.loss.alpha, tattaka.loss.kind) == ("weighted", 0.1, "balanced")
    assert (yu4u.model.patch_zyx, tattaka.model.patch_zyx) == ((16, 128, 128), (32, 128, 128))
    assert (yu4u.target.sigma_voxel, tattaka.target.sigma_voxel) == (6, None)
    assert yu4u.augment.mixup_probability == 0.5
