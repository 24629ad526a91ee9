"""The learning rate over a training: linear from 0, then a cosine to 0, per step (tables 1 and 2)."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcryo.config import OptimConfig


def learning_rate(step: ArrayLike, total_steps: ArrayLike, config: OptimConfig) -> Float[Array, ""]:
    """The rate of step 0, 1, ... `total_steps` - 1. The share of warm-up stays when a training is cut short.

    The cosine runs over the whole training and the warm-up replaces its beginning, as in timm's scheduler.
    """
    step, total = jnp.asarray(step, jnp.float32), jnp.asarray(total_steps, jnp.float32)
    warmup = total * (config.warmup_epochs / config.epochs)
    rising = config.learning_rate * step / jnp.maximum(warmup, 1e-9)
    falling = 0.5 * config.learning_rate * (1 + jnp.cos(jnp.pi * jnp.clip(step / total, 0, 1)))
    return jnp.where(step < warmup, rising, falling)
