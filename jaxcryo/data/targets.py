"""Target heatmaps, drawn from pick positions (paper section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from jaxcryo.config import TargetConfig
from jaxcryo.domain import ParticleType

_ROUNDED_REACH = 22  # half of the published 45-voxel patch, whose last voxel is left out


def sigmas_voxel(
    types: Sequence[ParticleType], config: TargetConfig, spacing_angstrom: float
) -> Float[NDArray[np.float32], " c"]:
    """Each type's width: its own if it has one, else the recipe's, else half its radius."""
    return np.array(
        [
            t.sigma_angstrom / spacing_angstrom
            if t.sigma_angstrom is not None
            else config.sigma_voxel
            if config.sigma_voxel is not None
            else t.radius_angstrom / (2 * spacing_angstrom)
            for t in types
        ],
        np.float32,
    )


def draw_targets(
    centers_zyx_voxel: Float[Array, "b n 3"],
    type_index: Int[Array, "b n"],
    *,
    sigma_voxel: Float[NDArray[np.float32], " c"],
    shape_zyx: tuple[int, int, int],
    config: TargetConfig,
) -> Float[Array, "b c d h w"]:
    """One heatmap per type for each window: a Gaussian of height 1 at every center, the maximum where they overlap.

    Centers may lie outside the window; the part that reaches into it is drawn.
    """
    batch, count = type_index.shape
    centers = jnp.trunc(centers_zyx_voxel) if config.rounded else centers_zyx_voxel
    reach = jnp.asarray(_reach(sigma_voxel, config))[type_index]  # (b, n)
    size = jnp.asarray(shape_zyx, jnp.float32)
    touches = jnp.all((centers > -reach[..., None] - 1) & (centers < size + reach[..., None]), axis=-1)
    # One loop over only those that touch their window, in a box that holds the widest of them: all are drawn into one
    # array in place, which a loop over windows would have to copy.
    order = jnp.argsort(~touches.ravel(), stable=True)
    widest = 2 * math.ceil(float(_reach(sigma_voxel, config).max())) + 1
    box = tuple(min(widest, n) for n in shape_zyx)

    def draw(n: Int[Array, ""], target: Float[Array, "b c d h w"]) -> Float[Array, "b c d h w"]:
        window, i = jnp.divmod(order[n], count)
        kind, center = type_index[window, i], centers[window, i]
        first = jnp.round(center).astype(jnp.int32) - widest // 2
        start = [jnp.clip(first[a], 0, shape_zyx[a] - box[a]) for a in range(3)]
        profiles = [
            _profile(
                start[a] + jnp.arange(box[a]) - center[a], jnp.asarray(sigma_voxel)[kind], reach[window, i], config
            )
            for a in range(3)
        ]
        # The barrier keeps XLA from computing exponentials for every voxel of the box.
        z, y, x = lax.optimization_barrier(profiles)
        gaussian = z[:, None, None] * y[:, None] * x
        if config.rounded:
            gaussian = jnp.floor(gaussian * 255 + 1e-4) / 255
        old = lax.dynamic_slice(target, (window, kind, *start), (1, 1, *box))
        return lax.dynamic_update_slice(target, jnp.maximum(old, gaussian), (window, kind, *start))

    return lax.fori_loop(0, touches.sum(), draw, jnp.zeros((batch, len(sigma_voxel), *shape_zyx), jnp.float32))


def _reach(sigma_voxel: Float[NDArray[np.float32], " c"], config: TargetConfig) -> Float[NDArray[np.float32], " c"]:
    if config.rounded:
        return np.full_like(sigma_voxel, _ROUNDED_REACH)
    return (config.cutoff_sigma * sigma_voxel).astype(np.float32)


def _profile(
    distance: Float[Array, " k"], sigma: Float[Array, ""], reach: Float[Array, ""], config: TargetConfig
) -> Float[Array, " k"]:
    inside = (distance >= -reach) & (distance < reach if config.rounded else distance <= reach)
    return jnp.where(inside, jnp.exp(-0.5 * jnp.square(distance / sigma)), 0.0)
