"""Targets for a training on partial labels where nothing is marked: what its own averaged weights are sure of."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcryo.config import PartialConfig

_CORE = 0.5
"""The target's value from which on a voxel counts as the center of a marked particle."""


def filled_in(
    target: Float[Array, "b c d h w"],
    known: Float[Array, "b c d h w"],
    answer: Float[Array, "b c d h w"],
    progress: Float[Array, ""],
    config: PartialConfig,
    *,
    axis: str | None = None,
) -> tuple[Float[Array, "b c d h w"], Float[Array, "b c d h w"]]:
    """The target with the teacher's confident `answer` where nothing is known, and the weight of each voxel.

    Known voxels keep their target and have weight 1. Elsewhere a voxel has weight 0, unless the answer is close to 0 or
    clearly high. No answer is trusted before the warm-up is over, nor about a type whose marked particles in this very
    batch the teacher does not see: a teacher that has learned nothing answers 0 everywhere.
    """
    core = known * (target > _CORE)
    seen, count = (answer * core).sum(axis=(0, 2, 3, 4)), core.sum(axis=(0, 2, 3, 4))
    if axis is not None:
        seen, count = lax.psum((seen, count), axis)
    learned = (count > 0) & (seen > config.trust * count)
    believed = (progress >= config.warmup) & learned[:, None, None, None]
    sure = believed & ((answer < config.surely_none) | (answer > config.surely_one))
    classes = target.shape[1]
    new = range(classes) if config.new_types is None else config.new_types
    unknown = jnp.array([config.unknown_weight * (i in new) for i in range(classes)])[:, None, None, None]
    weight = jnp.where(known > 0, 1.0, jnp.where(sure, 1.0, unknown * (progress < config.warmup)))
    none_or_answer = jnp.where(sure & (answer > config.surely_one), answer, 0.0)
    return jnp.where(known > 0, target, none_or_answer), lax.stop_gradient(weight)
