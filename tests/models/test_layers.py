"""Norms follow PyTorch's rules; half precision is for arithmetic only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.quick import compiled

from jaxcryo.config import NetworkConfig
from jaxcryo.models import Weights, build, convolution
from jaxcryo.models.layers import BatchNorm, Conv, Init, LayerNorm
from jaxcryo.models.yu4u.config import Yu4uConfig
from jaxcryo.recipes import recipe

NETWORKS = pytest.mark.parametrize(
    "config", [recipe("yu4u", "tiny").model, recipe("tattaka", "tiny").model], ids=["yu4u", "tattaka"]
)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)


def test_running_statistics_follow_pytorchs_rule() -> None:
    """Momentum 0.1, the unbiased variance kept, the biased one used."""
    norm = BatchNorm(3, dtype=jnp.float32)
    norm.train()
    x = draw(2, 4, 5, 3) * 2 + 1
    found = norm(jnp.asarray(x))
    wide = x.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(norm.mean[...], 0.1 * wide.mean(0), rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * wide.var(0, ddof=1), rtol=1e-5)
    expected = (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5)
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-5)


def test_running_statistics_are_used_and_kept_in_evaluation() -> None:
    norm = BatchNorm(3, dtype=jnp.float32)
    norm.mean[...], norm.var[...] = jnp.array([1.0, 2, 3]), jnp.array([4.0, 1, 0.25])
    norm.eval()
    x = draw(2, 4, 3)
    found = norm(jnp.asarray(x))
    np.testing.assert_allclose(found, (x - [1, 2, 3]) / np.sqrt(np.array([4, 1, 0.25]) + 1e-5), atol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], [1, 2, 3])


def test_statistics_of_a_mapped_axis_are_those_of_the_whole_batch() -> None:
    x = draw(2, 4, 5, 3) * 2 + 1

    def train(x: jax.Array, axis: str | None) -> tuple[jax.Array, ...]:
        norm = BatchNorm(3, dtype=jnp.float32)
        norm.batch_axis = axis
        norm.train()
        return norm(x), norm.mean.get_value(), norm.var.get_value()

    expected, *expected_stats = train(jnp.asarray(x), None)
    found, *found_stats = jax.vmap(lambda part: train(part, "devices"), axis_name="devices")(x[:, None])
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)
    for value, expected_value in zip(found_stats, expected_stats, strict=True):
        np.testing.assert_allclose(value, np.stack([expected_value] * 2), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_norms_compute_their_statistics_in_float32(dtype: jnp.dtype) -> None:
    """Values whose squares and sums half precision cannot hold."""
    x = jnp.asarray(draw(2, 64, 64, 8) + 300, dtype)
    exact = np.asarray(x, np.float64)
    batch = BatchNorm(8, dtype=dtype)
    batch.train()
    batch(x)
    assert batch.mean[...].dtype == batch.var[...].dtype == jnp.float32
    np.testing.assert_allclose(batch.mean[...], 0.1 * exact.mean((0, 1, 2)), rtol=1e-4)
    layer = LayerNorm(8, dtype=dtype)(x)
    expected = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-6)
    assert layer.dtype == dtype
    np.testing.assert_allclose(np.asarray(layer, np.float64), expected, atol=0.02)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the formulations agree is tested elsewhere."""
    monkeypatch.setattr(convolution, "best_formulation", lambda: "native")


def test_training_leaves_the_callers_statistics_alone() -> None:
    norm = BatchNorm(3, dtype=jnp.float32)
    norm.train()
    mean = norm.mean.get_value()
    norm(jnp.asarray(draw(2, 4, 3) + 1))
    np.testing.assert_array_equal(mean, np.zeros(3))
    assert not np.array_equal(norm.mean[...], mean)


@pytest.mark.slow
@NETWORKS
def test_half_precision_computes_with_float32_parameters(config: NetworkConfig) -> None:
    full, params, stats = build(config)
    windows = draw(1, 16, 32, 32)
    expected = np.asarray(compiled(full.apply)(params, stats, windows))
    for dtype, tolerance in ((jnp.bfloat16, 0.1), (jnp.float16, 0.02)):
        half, half_params, half_stats = build(config, dtype=dtype)
        assert {np.asarray(v).dtype for v in (half_params | half_stats).values()} == {np.dtype(np.float32)}
        found = compiled(half.apply)(params, stats, windows)
        assert found.dtype == jnp.float32
        assert 0 < float(np.abs(np.asarray(found) - expected).max() / expected.std()) < tolerance


@pytest.mark.slow
@NETWORKS
def test_half_precision_keeps_gradients_and_statistics_in_float32(config: NetworkConfig) -> None:
    half, params, stats = build(config, dtype=jnp.bfloat16)
    windows = draw(1, 16, 32, 32)

    def loss(params: Weights) -> tuple[jax.Array, Weights]:
        heatmaps, moved = half.apply_train(params, stats, windows)
        return heatmaps.mean(), moved

    gradients, moved = jax.eval_shape(jax.grad(loss, has_aux=True), params)
    assert {v.dtype for v in (gradients | moved).values()} == {jnp.dtype(jnp.float32)}


def test_shapes_alone_take_no_memory() -> None:
    _, params, stats = build(Yu4uConfig(), seed=None)
    assert sum(v.size for v in params.values()) + sum(v.size for v in stats.values()) > 147e6
    assert all(v.base is not None and v.base.size == 1 for v in params.values() if v.ndim > 1)


@NETWORKS
def test_a_seed_gives_one_network(config: NetworkConfig) -> None:
    (_, a, _), (_, b, _), (_, c, _) = build(config, seed=1), build(config, seed=1), build(config, seed=2)
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["head.kernel"], c["head.kernel"])


def test_initial_kernels_have_hes_variance() -> None:
    kernel = Init(0).kernel((3, 3, 64, 256))
    assert abs(kernel.std() / np.sqrt(2 / (9 * 64)) - 1) < 0.02
    assert np.abs(kernel).max() <= 2 * np.sqrt(2 / (9 * 64)) / 0.8796 + 1e-6


def test_a_depthwise_convolution_keeps_its_channels() -> None:
    with pytest.raises(ValueError, match="keeps its channels"):
        Conv(3, 4, (3, 3), depthwise=True, init=Init(None))
