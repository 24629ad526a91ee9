"""Everything that a training has learnt so far, as one tree of arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
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
    """One pytree; checkpoints hold just this."""

    step: Int[Array, ""]
    total_steps: Int[Array, ""]
    params: Weights
    stats: Weights
    optimizer: Any
    ema_params: Weights
    ema_stats: Weights
    loss_scale: LossScale


def optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """AdamW without its learning rate, which the step multiplies in: the length of a training may change."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm is not None else optax.identity(),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=config.epsilon),
        optax.add_decayed_weights(config.weight_decay),
    )


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
