"""What happens to a window and its picks before the network sees them (published `get_train_transforms`)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxcryo.config import AugmentConfig


def augment(
    window: Float[Array, "d h w"], picks_zyx_voxel: Float[Array, "n 3"], *, key: Key[Array, ""], config: AugmentConfig
) -> tuple[Float[Array, "d h w"], Float[Array, "n 3"]]:
    """Shift, scale and rotation in the plane with zeros from outside, flips, brightness and contrast.

    Picks move with the voxels; the order is the published one.
    """
    warp_key, flip_key, intensity_key = jax.random.split(key, 3)
    window, picks = _warp(window, picks_zyx_voxel, key=warp_key, config=config)
    window, picks = _flip(window, picks, key=flip_key, config=config)
    return _intensity(window, key=intensity_key, config=config), picks


def _warp(
    window: Float[Array, "d h w"], picks: Float[Array, "n 3"], *, key: Key[Array, ""], config: AugmentConfig
) -> tuple[Float[Array, "d h w"], Float[Array, "n 3"]]:
    depth, height, width = window.shape
    apply_key, angle_key, scale_key, shift_key = jax.random.split(key, 4)
    on = jax.random.bernoulli(apply_key, float(config.warp_probability))
    angle = jax.random.uniform(angle_key, minval=-1.0) * jnp.deg2rad(config.rotation_degree) * on
    scale = 1 + jax.random.uniform(scale_key, minval=-1.0) * config.scale * on
    size = jnp.array([height, width], jnp.float32)
    shift = jax.random.uniform(shift_key, (2,), minval=-1.0) * config.shift * size * on
    centre = (size - 1) / 2
    rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])

    moved = (picks[:, 1:] - centre) @ rotation.T * scale + centre + shift
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    grid = jnp.stack([y, x], -1).reshape(-1, 2)
    source = (grid - centre - shift) @ rotation / scale + centre  # the inverse of the line for the picks

    # All slices of one pixel lie side by side, so that one gather of a pixel fetches them at once. The barriers keep
    # XLA from computing indices and weights again for every slice.
    columns = lax.optimization_barrier(window.reshape(depth, -1).T)
    low = jnp.floor(source)
    fraction = source - low
    total = jnp.zeros_like(columns)
    for dy in (0, 1):
        for dx in (0, 1):
            corner = low.astype(jnp.int32) + jnp.array([dy, dx])
            inside = jnp.all((corner >= 0) & (corner < jnp.array([height, width])), axis=1)
            weight = (fraction[:, 0] if dy else 1 - fraction[:, 0]) * (fraction[:, 1] if dx else 1 - fraction[:, 1])
            index = jnp.where(inside, corner[:, 0] * width + corner[:, 1], 0)
            index, weight = lax.optimization_barrier((index, weight * inside))
            total = total + lax.optimization_barrier(columns[index]) * weight[:, None]
    return total.T.reshape(window.shape), jnp.concatenate([picks[:, :1], moved], axis=1)


def _flip(
    window: Float[Array, "d h w"], picks: Float[Array, "n 3"], *, key: Key[Array, ""], config: AugmentConfig
) -> tuple[Float[Array, "d h w"], Float[Array, "n 3"]]:
    probabilities = (config.flip_z_probability, config.flip_y_probability, config.flip_x_probability)
    for axis, (axis_key, probability) in enumerate(zip(jax.random.split(key, 3), probabilities, strict=True)):
        if probability == 0:
            continue
        on = jax.random.bernoulli(axis_key, float(probability))
        window = jnp.where(on, jnp.flip(window, axis), window)
        picks = picks.at[:, axis].set(jnp.where(on, window.shape[axis] - 1 - picks[:, axis], picks[:, axis]))
    return window, picks


def _intensity(window: Float[Array, "d h w"], *, key: Key[Array, ""], config: AugmentConfig) -> Float[Array, "d h w"]:
    apply_key, contrast_key, brightness_key = jax.random.split(key, 3)
    on = jax.random.bernoulli(apply_key, float(config.intensity_probability))
    contrast = jax.random.uniform(contrast_key, minval=-1.0) * config.contrast * on
    brightness = jax.random.uniform(brightness_key, minval=-1.0) * config.brightness * on
    return window * (1 + contrast) + brightness
