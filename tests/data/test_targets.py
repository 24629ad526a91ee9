"""Targets: right values at sub-voxel positions, and the published rounding."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcryo.config import TargetConfig
from jaxcryo.data.targets import draw_targets, sigmas_voxel
from jaxcryo.domain import CZII_TYPES, ParticleType

SHAPE = (12, 40, 36)
SIGMA = np.array([2.0, 3.5], np.float32)


def dense(centers: np.ndarray, kinds: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The definition, without cut-off."""
    out = np.zeros((len(sigma), *SHAPE))
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    for c, k in zip(centers, kinds, strict=True):
        out[k] = np.maximum(out[k], np.exp(-0.5 * (((grid - c) / sigma[k]) ** 2).sum(-1)))
    return out


def test_equals_the_definition_up_to_the_cutoff() -> None:
    rng = np.random.default_rng(0)
    centers, kinds = rng.uniform(-8, 44, (20, 3)), rng.integers(0, 2, 20)
    drawn = draw_targets(
        jnp.asarray(centers.reshape(2, 10, 3), jnp.float32), jnp.asarray(kinds.reshape(2, 10)), sigma_voxel=SIGMA,
        shape_zyx=SHAPE, config=TargetConfig(),
    )  # fmt: skip
    for half, window in zip((slice(0, 10), slice(10, 20)), drawn, strict=True):
        np.testing.assert_allclose(window, dense(centers[half], kinds[half], SIGMA), atol=4e-4)
    assert float(drawn.max()) > 0.5


def test_far_picks_draw_nothing() -> None:
    centers = jnp.array([[[5.0, 5, 80], [-1e6, -1e6, -1e6]]])
    drawn = draw_targets(
        centers, jnp.zeros((1, 2), jnp.int32), sigma_voxel=SIGMA, shape_zyx=SHAPE, config=TargetConfig()
    )
    assert float(jnp.abs(drawn).max()) == 0


def test_rounded_is_the_published_mask() -> None:
    center = np.array([6.7, 20.2, 18.9])
    drawn = draw_targets(
        jnp.asarray(center[None, None], jnp.float32), jnp.zeros((1, 1), jnp.int32),
        sigma_voxel=np.array([6.0], np.float32), shape_zyx=SHAPE, config=TargetConfig(rounded=True),
    )  # fmt: skip
    d = np.arange(45) - 22
    patch = np.exp(-(d[:, None, None] ** 2 + d[:, None] ** 2 + d**2) / (2 * 36)) * 255
    mask = np.zeros(SHAPE, np.uint8)
    z, y, x = center.astype(int)
    for i in np.ndindex(SHAPE):
        offset = np.array(i) - (z, y, x)
        if (offset >= -22).all() and (offset < 22).all():
            mask[i] = patch[tuple(offset + 22)].astype(np.uint8)
    np.testing.assert_allclose(drawn[0, 0] * 255, mask, atol=1e-3)


def test_width_is_the_type_s_own_then_the_recipe_s_then_half_the_radius() -> None:
    own = ParticleType(name="x", radius_angstrom=100, sigma_angstrom=30)
    assert sigmas_voxel([own, CZII_TYPES[0]], TargetConfig(), 10.0).tolist() == [3, 6]
    assert sigmas_voxel([own, CZII_TYPES[0]], TargetConfig(sigma_voxel=None), 10.0) == pytest.approx([3, 3])
