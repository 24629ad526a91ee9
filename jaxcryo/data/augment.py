"""Augmentation of a window and its picks (published `get_train_transforms`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from jaxcryo.config import AugmentConfig

Result = TypeVar("Result")


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


def augment_known(
    known: Float[Array, "c d h w"], *, key: Key[Array, ""], config: AugmentConfig
) -> Float[Array, "c d h w"]:
    """The known voxels of a window, moved as `augment` moves the window with the same key: 1 where all is known."""
    warp_key, flip_key, _ = jax.random.split(key, 3)
    none = jnp.zeros((0, 3))

    def move(channel: Float[Array, "d h w"]) -> Float[Array, "d h w"]:
        return _flip(_warp(channel, none, key=warp_key, config=config)[0], none, key=flip_key, config=config)[0]

    return jnp.where(each(move, known) > 0.999, 1.0, 0.0)


def _warp(
    window: Float[Array, "d h w"], picks: Float[Array, "n 3"], *, key: Key[Array, ""], config: AugmentConfig
) -> tuple[Float[Array, "d h w"], Float[Array, "n 3"]]:
    if config.warp_probability == 0:
        return window, picks
    apply_key, angle_key, scale_key, shift_key = jax.random.split(key, 4)
    on = jax.random.bernoulli(apply_key, float(config.warp_probability))
    angle = jax.random.uniform(angle_key, minval=-1.0) * jnp.deg2rad(config.rotation_degree)
    scale = 1 + jax.random.uniform(scale_key, minval=-1.0) * config.scale
    size = jnp.array(window.shape[1:], jnp.float32)
    shift = jax.random.uniform(shift_key, (2,), minval=-1.0) * config.shift * size
    center = (size - 1) / 2
    rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])

    moved = (picks[:, 1:] - center) @ rotation.T * scale + center + shift
    inverse = rotation / scale
    warped = lax.cond(on, lambda: _resample(window, inverse, center, shift), lambda: window)
    return warped, jnp.where(on, jnp.concatenate([picks[:, :1], moved], axis=1), picks)


def _resample(
    window: Float[Array, "d h w"], inverse: Float[Array, "2 2"], center: Float[Array, "2"], shift: Float[Array, "2"]
) -> Float[Array, "d h w"]:
    """Every slice at (p - center - shift) @ inverse + center of each pixel p, bilinear, zeros outside."""
    _, height, width = window.shape
    rows = jnp.arange(height)[:, None] - center[0] - shift[0]
    columns = jnp.arange(width) - center[1] - shift[1]
    y = rows * inverse[0, 0] + columns * inverse[1, 0] + center[0]
    x = rows * inverse[0, 1] + columns * inverse[1, 1] + center[1]
    # Two voxels of zeros all around: points further out are moved to where all four neighbors are zeros.
    pad, stride = 2, width + 4
    low_y, low_x = jnp.clip(jnp.floor(y), -pad, height), jnp.clip(jnp.floor(x), -pad, width)
    first = ((low_y + pad) * stride + low_x + pad).astype(jnp.int32)
    # The barrier keeps XLA from recomputing positions and weights for every slice.
    first, right, below = lax.optimization_barrier((first, jnp.clip(x - low_x, 0, 1), jnp.clip(y - low_y, 0, 1)))

    def plane(voxels: Float[Array, "h w"]) -> Float[Array, "h w"]:
        flat = jnp.pad(voxels, pad).ravel()

        def at(offset: int) -> Float[Array, "h w"]:
            return flat.at[first + offset].get(mode="promise_in_bounds")

        upper = at(0) * (1 - right) + at(1) * right
        lower = at(stride) * (1 - right) + at(stride + 1) * right
        return upper * (1 - below) + lower * below

    return each(plane, window)


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


def each(work: Callable[..., Result], *items: Any) -> Result:
    """`work` on every item along the first axis.

    On CPUs one after another: an item stays in the cache, and branches not taken are not computed. Elsewhere all at
    once: many small kernels would leave the device idle.
    """
    if jax.default_backend() == "cpu":
        result: Result = lax.map(lambda item: work(*item), items)
        return result
    return jax.vmap(work)(*items)
