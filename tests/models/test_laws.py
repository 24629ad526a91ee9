"""Laws that hold for any weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.quick import compiled

from jaxcryo.config import NetworkConfig
from jaxcryo.errors import InputError
from jaxcryo.models import Network, Weights, build, convolution
from jaxcryo.models.layers import DecoderBlock, Init, pixel_shuffle, pool_depth
from jaxcryo.models.tattaka.config import TattakaConfig
from jaxcryo.models.tattaka.network import UpBlock
from jaxcryo.models.yu4u.network import depth_pools, neighbor_slices
from jaxcryo.recipes import recipe

YU4U, TATTAKA = recipe("yu4u", "tiny").model, recipe("tattaka", "tiny").model
NETWORKS = pytest.mark.parametrize("config", [YU4U, TATTAKA], ids=["yu4u", "tattaka"])


def random_network(config: NetworkConfig) -> tuple[Network, Weights, Weights]:
    """A network whose norms and layer scales are not at their simple initial values."""
    network, params, stats = build(config, seed=1)
    rng = np.random.default_rng(2)
    params = {
        k: v + 0.2 * rng.standard_normal(v.shape, np.float32) if v.ndim == 1 else jnp.asarray(v)
        for k, v in params.items()
    }
    stats = {k: v + 0.2 * rng.random(v.shape, np.float32) for k, v in stats.items()}
    return network, params, stats


@functools.cache
def prepared(config: NetworkConfig) -> tuple[Callable[..., jax.Array], Weights, Weights]:
    """A random network's compiled function with its arrays."""
    network, params, stats = random_network(config)
    return compiled(network.apply), params, stats


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the formulations agree is tested elsewhere."""
    monkeypatch.setattr(convolution, "best_formulation", lambda: "native")


@pytest.mark.slow
@NETWORKS
def test_batch_items_do_not_meet(config: NetworkConfig) -> None:
    network, params, stats = random_network(config)
    windows = draw(3, 16, 32, 32)
    gradient = compiled(jax.grad(lambda w: network.apply(params, stats, w)[1].sum()))(windows)
    moved = np.abs(gradient).max((1, 2, 3)) > 0
    np.testing.assert_array_equal(moved, [False, True, False])


@pytest.mark.slow
@NETWORKS
def test_an_items_answer_does_not_depend_on_its_batch(config: NetworkConfig) -> None:
    apply, params, stats = prepared(config)
    windows = draw(2, 16, 32, 64)
    together = np.asarray(apply(params, stats, windows))
    other = np.asarray(apply(params, stats, np.stack([windows[0], 5 - windows[1]])))
    np.testing.assert_array_equal(together[0], other[0])
    assert np.abs(together[1] - other[1]).max() > 0.01 * together.std()


def flip_kernels(params: Weights, classes: int, stride: int) -> Weights:
    """All kernels mirrored in x; the head's channels, which hold x positions, too."""
    flipped = {k: v[..., ::-1, :, :] if k.endswith("kernel") else v for k, v in params.items()}
    for k in ("head.kernel", "head.bias"):
        v = params[k]
        flipped[k] = v.reshape(*v.shape[:-1], classes, stride, stride, stride)[..., ::-1].reshape(v.shape)
    return flipped


@pytest.mark.slow
def test_yu4us_network_flips_with_its_weights() -> None:
    apply, params, stats = prepared(YU4U)
    windows = draw(2, 16, 32, 64)
    expected = np.asarray(apply(params, stats, windows))[..., ::-1]
    flipped = flip_kernels(params, YU4U.classes, YU4U.head_stride)
    found = np.asarray(apply(flipped, stats, windows[..., ::-1]))
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std())


@pytest.mark.slow
def test_tattakas_network_flips_where_its_strided_convolutions_may_be_mirrored() -> None:
    """A 3x3 convolution of stride 2 samples every even pixel; mirrored, it would sample every odd one.

    So the law holds for the network with such kernels reduced to means over 2x2 pixels, which lie symmetrically.
    """
    apply, params, stats = prepared(TATTAKA)
    params = dict(params)
    strided = [
        k
        for k in params
        if k.endswith("kernel")
        and (
            k == "encoder.stem.conv1.conv.kernel"
            or k == "encoder.stages.0.pool.conv.kernel"
            or k in {f"encoder.stages.{n}.blocks.0.conv2.conv.kernel" for n in (1, 2, 3)}
        )
    ]
    assert len(strided) == 5
    for k in strided:
        mean = params[k].mean((0, 1), keepdims=True)
        params[k] = jnp.zeros_like(params[k]).at[1:, 1:].set(mean)
    flipped = flip_kernels(params, TATTAKA.classes, 2 ** (3 - len(TATTAKA.decoder_widths)))
    flipped |= {k: params[k] for k in strided}
    windows = draw(2, 16, 32, 64)
    expected = np.asarray(apply(params, stats, windows))[..., ::-1]
    found = np.asarray(apply(flipped, stats, windows[..., ::-1]))
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.std())


@NETWORKS
@pytest.mark.parametrize("size", [(16, 32, 32), (32, 32, 64), (48, 64, 32)])
def test_any_size_that_the_strides_allow_works(config: NetworkConfig, size: tuple[int, int, int]) -> None:
    network, params, stats = build(config, seed=None)
    windows = jax.ShapeDtypeStruct((2, *size), jnp.float32)
    heatmaps = jax.eval_shape(network.apply, params, stats, windows)
    assert heatmaps.shape == (2, config.classes, *size) and heatmaps.dtype == jnp.float32


@NETWORKS
@pytest.mark.parametrize("size", [(16, 48, 64), (16, 64, 48), (6, 64, 64), (17, 64, 64), (16, 16, 64)])
def test_other_sizes_have_a_clear_error(config: NetworkConfig, size: tuple[int, int, int]) -> None:
    network, params, stats = build(config, seed=None)
    with pytest.raises(InputError, match=f"{size[0]}x{size[1]}x{size[2]}.*multiple"):
        jax.eval_shape(network.apply, params, stats, jax.ShapeDtypeStruct((1, *size), jnp.float32))


@pytest.mark.parametrize(
    ("patch", "pools"), [((16, 128, 128), (4, 2, 2, 1)), ((32, 128, 128), (4, 2, 2, 1)), ((16, 96, 64), (4, 2, 2, 1))]
)
def test_depth_pools_as_published(patch: tuple[int, int, int], pools: tuple[int, ...]) -> None:
    assert depth_pools(patch) == pools


@pytest.mark.parametrize("widths", [(16,), (16, 8), (16, 8, 4)])
def test_tattakas_decoder_ends_at_any_of_its_strides(widths: tuple[int, ...]) -> None:
    network, params, stats = build(dataclasses.replace(TATTAKA, decoder_widths=widths), seed=None)
    heatmaps = jax.eval_shape(network.apply, params, stats, jax.ShapeDtypeStruct((1, 8, 32, 32), jnp.float32))
    assert heatmaps.shape == (1, 6, 8, 32, 32)


def test_neighbors_are_channels_in_ascending_z() -> None:
    windows = np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1)
    found = np.asarray(neighbor_slices(jnp.asarray(windows), 2))[0, :, 0, 0]
    np.testing.assert_array_equal(found, [[0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [2, 3, 4, 0, 0]])


def test_pixel_shuffle_orders_channels_class_z_y_x() -> None:
    x = np.arange(2 * 1 * 1 * 2 * 48, dtype=np.float32).reshape(2, 1, 1, 2, 48)
    found = np.asarray(pixel_shuffle(jnp.asarray(x), (2, 3, 4)))
    assert found.shape == (2, 2, 2, 3, 8)
    for b, c, z, y, i in np.ndindex(found.shape):
        assert found[b, c, z, y, i] == x[b, 0, 0, i // 4, ((c * 2 + z) * 3 + y) * 4 + i % 4]


def test_depth_pooling_is_a_mean_within_items() -> None:
    x = jnp.asarray(draw(8, 2, 2, 3))
    np.testing.assert_allclose(pool_depth(x, 2, 4), x.reshape(2, 4, 2, 2, 3).mean(1), rtol=1e-6)
    assert pool_depth(x, 2, 1) is x
    with pytest.raises(ValueError, match="cannot be pooled by 3"):
        pool_depth(x, 2, 3)


@pytest.mark.parametrize("depth_factor", [1, 2])
def test_decoder_blocks_flip(depth_factor: int) -> None:
    block = DecoderBlock(4, 3, 5, depth_factor, dtype=jnp.float32, init=Init(0))
    block.eval()
    x, skip = map(jnp.asarray, (draw(1, 2, 4, 4, 4), draw(1, 2 * depth_factor, 8, 8, 3)))
    expected = np.asarray(block(x, skip))[:, :, :, ::-1]
    for layer in (block.up, block.refine.conv):
        layer.kernel[...] = layer.kernel[...][:, :, ::-1]
    np.testing.assert_allclose(block(x[:, :, :, ::-1], skip[:, :, :, ::-1]), expected, atol=1e-5)


def test_attention_is_the_sum_of_channel_and_spatial_excitation() -> None:
    config = TattakaConfig(scse_reduction=4)
    block = UpBlock(4, 0, 8, 2, config, dtype=jnp.float32, init=Init(0))
    block.eval()
    y = np.asarray(block.block(jnp.asarray(draw(1, 2, 4, 4, 4)), None), np.float64)
    a = block.attention
    fc1, fc2, spatial = (np.asarray(layer.kernel[...], np.float64)[0, 0, 0] for layer in (a.fc1, a.fc2, a.spatial))

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    channel = sigmoid(np.maximum(y.mean((1, 2, 3), keepdims=True) @ fc1, 0) @ fc2)
    np.testing.assert_allclose(a(jnp.asarray(y, jnp.float32)), y * channel + y * sigmoid(y @ spatial), atol=1e-5)
