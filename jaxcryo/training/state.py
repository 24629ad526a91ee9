"""Everything that a training has learned so far, as one tree of arrays, with optimizer and schedule."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxcryo.config import OptimConfig
from jaxcryo.models import Weights


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LossScale:
    """Dynamic scaling of float16 gradients: halved when one overflows, doubled after 2000 steps without."""

    scale: Float[Array, ""]
    good_steps: Int[Array, ""]

    def next(self, finite: Array) -> LossScale:
        """The scale after a step whose gradients were or were not finite."""
        grow = finite & (self.good_steps >= 1999)
        scale = jnp.where(finite, jnp.where(grow, self.scale * 2, self.scale), jnp.maximum(self.scale / 2, 1))
        return LossScale(
            scale=jnp.minimum(scale, 2.0**24), good_steps=jnp.where(finite & ~grow, self.good_steps + 1, 0)
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """One pytree; checkpoints hold exactly this."""

    step: Int[Array, ""]
    total_steps: Int[Array, ""]
    params: Weights
    stats: Weights
    optimizer: Any
    ema_params: Weights
    ema_stats: Weights
    loss_scale: LossScale


def optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW without its learning rate, which the step applies, since the length of a training may change."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm is not None else optax.identity(),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
    )


def learning_rate(step: ArrayLike, total_steps: ArrayLike, config: OptimConfig) -> Float[Array, ""]:
    """Linear from 0, then a cosine to 0 (tables 1 and 2), at step 0, 1, ... `total_steps` - 1.

    The warm-up keeps its share when a training is cut short. The cosine runs over the whole training and the
    warm-up replaces its beginning, as in timm's scheduler.
    """
    step, total = jnp.asarray(step, jnp.float32), jnp.asarray(total_steps, jnp.float32)
    warmup = total * (config.warmup_epochs / config.epochs)
    rising = config.learning_rate * step / jnp.maximum(warmup, 1e-9)
    falling = 0.5 * config.learning_rate * (1 + jnp.cos(jnp.pi * jnp.clip(step / total, 0, 1)))
    return jnp.where(step < warmup, rising, falling)


def initial_state(
    params: Weights, stats: Weights, *, total_steps: int, config: OptimConfig, half_precision: bool
) -> TrainState:
    """The state before the first step; the averages start as the weights themselves."""
    return TrainState(
        step=jnp.asarray(0, jnp.int32),
        total_steps=jnp.asarray(total_steps, jnp.int32),
        params=params,
        stats=stats,
        optimizer=optimizer(config).init(params),
        ema_params=jax.tree.map(jnp.copy, params),
        ema_stats=jax.tree.map(jnp.copy, stats),
        loss_scale=LossScale(
            scale=jnp.asarray(2.0**15 if half_precision else 1.0, jnp.float32), good_steps=jnp.asarray(0, jnp.int32)
        ),
    )
