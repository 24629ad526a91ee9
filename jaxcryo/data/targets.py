"""Target heatmaps, drawn from pick positions (paper section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import NDArray

from jaxcryo.config import TargetConfig
from jaxcryo.domain import ParticleType

_ROUNDED_REACH = 22  # half of the published 45-voxel patch, whose last voxel is left out


def sigmas_voxel(
    types: Sequence[ParticleType], config: TargetConfig, spacing_angstrom: float
) -> Float[NDArray[np.float32], " c"]:
    """Each type's width: its own where it has one, else the recipe's, else half its radius."""
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
    centers_zyx_voxel: Float[Array, "n 3"],
    type_index: Int[Array, " n"],
    valid: Bool[Array, " n"],
    *,
    sigma_voxel: Float[NDArray[np.float32], " c"],
    shape_zyx: tuple[int, int, int],
    config: TargetConfig,
) -> Float[Array, "c d h w"]:
    """One heatmap per type: a Gaussian of height 1 at every valid centre, the maximum where they overlap.

    Centres may lie outside the window; what reaches into it is drawn.
    """
    centers = jnp.trunc(centers_zyx_voxel) if config.rounded else centers_zyx_voxel
    reach = jnp.asarray(_reach(sigma_voxel, config))[type_index]  # (n,)
    size = jnp.asarray(shape_zyx, jnp.float32)
    touches = valid & jnp.all((centers > -reach[:, None] - 1) & (centers < size + reach[:, None]), axis=1)
    # The loop runs over those that touch the window only, in a box that holds the widest of them.
    order = jnp.argsort(~touches, stable=True)
    widest = 2 * math.ceil(float(_reach(sigma_voxel, config).max())) + 1
    box = tuple(min(widest, n) for n in shape_zyx)

    def draw(n: Int[Array, ""], target: Float[Array, "c d h w"]) -> Float[Array, "c d h w"]:
        i = order[n]
        kind, center = type_index[i], centers[i]
        first = jnp.round(center).astype(jnp.int32) - widest // 2
        start = [jnp.clip(first[a], 0, shape_zyx[a] - box[a]) for a in range(3)]
        profiles = [
            _profile(start[a] + jnp.arange(box[a]) - center[a], jnp.asarray(sigma_voxel)[kind], reach[i], config)
            for a in range(3)
        ]
        gaussian = profiles[0][:, None, None] * profiles[1][:, None] * profiles[2]
        if config.rounded:
            gaussian = jnp.floor(gaussian * 255 + 1e-4) / 255
        old = lax.dynamic_slice(target, (kind, *start), (1, *box))
        return lax.dynamic_update_slice(target, jnp.maximum(old, gaussian[None]), (kind, *start))

    return lax.fori_loop(0, touches.sum(), draw, jnp.zeros((len(sigma_voxel), *shape_zyx), jnp.float32))


def _reach(sigma_voxel: Float[NDArray[np.float32], " c"], config: TargetConfig) -> Float[NDArray[np.float32], " c"]:
    if config.rounded:
        return np.full_like(sigma_voxel, _ROUNDED_REACH)
    return (config.cutoff_sigma * sigma_voxel).astype(np.float32)


def _profile(
    distance: Float[Array, " k"], sigma: Float[Array, ""], reach: Float[Array, ""], config: TargetConfig
) -> Float[Array, " k"]:
    inside = (distance >= -reach) & (distance < reach if config.rounded else distance <= reach)
    return jnp.where(inside, jnp.exp(-0.5 * jnp.square(distance / sigma)), 0.0)
