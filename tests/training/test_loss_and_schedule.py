"""Losses as the paper's equations, the schedule as its tables."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcryo.config import LossConfig, OptimConfig
from jaxcryo.domain import CZII_TYPES
from jaxcryo.recipes import recipe
from jaxcryo.training.loss import loss
from jaxcryo.training.run_folder import RunDescription, RunFolder, describe, read_description
from jaxcryo.training.state import learning_rate

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


@pytest.mark.parametrize(("arch", "epochs", "warmup"), [("yu4u", 64, 4), ("tattaka", 25, 5)])
def test_schedule_of_the_paper_s_tables(arch, epochs, warmup) -> None:
    """Rate 1e-3, cosine decay, warm-up and epochs of tables 1 and 2, for six runs of 1782 windows in batches of 32."""
    steps = 6 * 1782 // 32
    total = epochs * steps

    def rate(step: float) -> float:
        return float(learning_rate(int(step), total, recipe(arch).optim))

    assert rate(0) == 0
    assert rate(1) == pytest.approx(1e-3 / (warmup * steps), rel=1e-4)  # it moves with every step
    assert rate(warmup * steps / 2) == pytest.approx(5e-4, rel=1e-4)
    top = max(rate(s) for s in range(warmup * steps - 3, warmup * steps + 3))
    assert top == rate(warmup * steps - 1) == pytest.approx(1e-3, rel=1e-3)
    assert rate(warmup * steps) == pytest.approx(5e-4 * (1 + np.cos(np.pi * warmup / epochs)), rel=1e-4)
    assert rate(total / 2) == pytest.approx(5e-4, rel=1e-4)
    assert rate(3 * total / 4) == pytest.approx(5e-4 * (1 + np.cos(np.pi * 3 / 4)), rel=1e-3)
    assert 0 <= rate(total - 1) < 1e-9
    assert rate(total) == pytest.approx(0, abs=1e-12)


TABLE_1 = {
    "learning_rate": 1e-3, "weight_decay": 0.0, "epochs": 64, "warmup_epochs": 4, "batch": 32, "accumulate": None,
    "ema_decay": 0.999, "ema_warmup": False, "clip_norm": None, "epsilon": 1e-8,
}  # fmt: skip
TABLE_2 = {**TABLE_1, "weight_decay": 1e-2, "epochs": 25, "warmup_epochs": 5}
AUGMENT = {
    "warp_probability": 0.5, "shift": 0.05, "scale": 0.1, "rotation_degree": 180.0, "flip_x_probability": 0.5,
    "flip_y_probability": 0.0, "flip_z_probability": 0.0, "intensity_probability": 0.3, "brightness": 0.3,
    "contrast": 0.3, "mixup_probability": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "table", "loss_kind", "sigma", "patch", "stride"),
    [
        ("yu4u", TABLE_1, {"kind": "weighted", "alpha": 0.1}, 6.0, [16, 128, 128], [8, 48, 48]),
        ("tattaka", TABLE_2, {"kind": "balanced"}, None, [32, 128, 128], [16, 48, 48]),
    ],
)
def test_hyperparameters_are_read_back_from_a_run(tmp_path, arch, table, loss_kind, sigma, patch, stride) -> None:
    """As text, so that a default that somebody changes is seen."""
    description = RunDescription(
        config=recipe(arch), types=CZII_TYPES, fold=0, train_runs=("a", "b"), held_out="c", spacing_angstrom=10.012444,
        steps=None,
    )  # fmt: skip
    describe(RunFolder(tmp_path), description)
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert config["optim"] == table
    assert config["augment"] == AUGMENT
    assert config["crop"] == {"stride": 0.5, "jitter": 0.25, "near_pick": 0.0}
    assert loss_kind.items() <= config["loss"].items()
    assert config["target"]["sigma_voxel"] == sigma
    assert config["intensity"] == {"rule": "fixed", "mean": 5.2577832e-08, "std": 7.199929e-06, "clip": None}
    assert (config["model"]["patch_zyx"], config["inference"]["stride_zyx"]) == (patch, stride)
    assert config["pretrained"] and not config["sync_batch_norm"]
    assert read_description(RunFolder(tmp_path)) == description


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
