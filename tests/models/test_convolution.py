"""Every formulation of a convolution gives the same answer."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from golden import reference
from golden.quick import compiled

from jaxcryo.config import NetworkConfig
from jaxcryo.models import build, convolution
from jaxcryo.recipes import recipe

FORMULATIONS = ("native", "unrolled")
TOLERANCE = 2e-6
"""Of the answer's standard deviation: what summing in another order costs in float32."""


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def close(found: object, expected: np.ndarray) -> bool:
    """Whether a channel-last answer is the channel-first reference's."""
    found = np.moveaxis(np.asarray(found), -1, 1)
    return found.shape == expected.shape and bool(np.abs(found - expected).max() < TOLERANCE * expected.std())


def torch_layout(kernel: np.ndarray) -> np.ndarray:
    """(*kernel, in, out) to (out, in, *kernel) in float64."""
    return np.moveaxis(kernel, (-1, -2), (0, 1)).astype(np.float64)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_conv3d(formulation: convolution.Formulation, depth: int) -> None:
    x, kernel = draw(2, depth, 5, 6, 3), draw(3, 3, 3, 3, 4)
    expected = reference.conv(np.moveaxis(x, -1, 1).astype(np.float64), torch_layout(kernel), padding=1)
    assert close(convolution.conv3d(jnp.asarray(x), jnp.asarray(kernel), formulation), expected)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("size", [3, 7])
def test_depthwise2d(formulation: convolution.Formulation, size: int) -> None:
    x, kernel = draw(2, 6, 9, 4), draw(size, size, 1, 4)
    expected = reference.conv(
        np.moveaxis(x, -1, 1).astype(np.float64), torch_layout(kernel), padding=size // 2, groups=4
    )
    assert close(convolution.depthwise2d(jnp.asarray(x), jnp.asarray(kernel), formulation), expected)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
def test_dilated_depthwise3d(formulation: convolution.Formulation, dilation: int) -> None:
    x, kernel = draw(2, 3, 6, 9, 4), draw(3, 3, 3, 1, 4)
    expected = reference.conv(
        np.moveaxis(x, -1, 1).astype(np.float64), torch_layout(kernel), padding=dilation, dilation=dilation, groups=4
    )
    assert close(convolution.depthwise3d(jnp.asarray(x), jnp.asarray(kernel), dilation, formulation), expected)


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("depth_factor", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_convolution_of_the_upsampled(formulation: convolution.Formulation, depth_factor: int, depth: int) -> None:
    x, kernel = draw(2, depth, 3, 4, 3), draw(3, 3, 3, 3, 5)
    up = np.moveaxis(x, -1, 1).astype(np.float64).repeat(depth_factor, 2).repeat(2, 3).repeat(2, 4)
    expected = reference.conv(up, torch_layout(kernel), padding=1)
    assert close(convolution.upsampled_conv3d(jnp.asarray(x), jnp.asarray(kernel), depth_factor, formulation), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_strided_and_patch_conv2d(stride: int) -> None:
    x = draw(2, 8, 8, 3)
    for kernel, padding in ((draw(3, 3, 3, 4), 1), (draw(stride, stride, 3, 4), 0)):
        expected = reference.conv(
            np.moveaxis(x, -1, 1).astype(np.float64), torch_layout(kernel), stride=stride, padding=padding
        )
        assert close(convolution.conv2d(jnp.asarray(x), jnp.asarray(kernel), stride=stride, padding=padding), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [recipe("yu4u", "tiny").model, recipe("tattaka", "tiny").model], ids=["yu4u", "tattaka"]
)
def test_whole_networks_do_not_depend_on_the_formulation(
    config: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, params, stats = build(config)
    windows = draw(1, 16, 32, 32)
    answers = []
    for formulation in FORMULATIONS:
        monkeypatch.setattr(convolution, "best_formulation", lambda formulation=formulation: formulation)
        answers.append(np.asarray(compiled(lambda *a: network.apply(*a))(params, stats, windows)))
    assert np.abs(answers[0] - answers[1]).max() < 1e-4 * answers[0].std()
