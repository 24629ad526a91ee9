"""The two losses of the paper (equations 1 and 2), over a batch that may be spread over devices."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcryo.config import LossConfig


def loss(
    predicted: Float[Array, "b c d h w"],
    target: Float[Array, "b c d h w"],
    config: LossConfig,
    *,
    axis: str | None = None,
) -> Float[Array, ""]:
    """The loss of the batch. With `axis`, the mean of the devices' values is the loss of the joint batch."""
    positive, negative = loss_parts(predicted, target, config, axis=axis)
    return positive + negative


def loss_parts(
    predicted: Float[Array, "b c d h w"],
    target: Float[Array, "b c d h w"],
    config: LossConfig,
    *,
    weight: Float[Array, "b c d h w"] | None = None,
    axis: str | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The two terms of either equation: errors weighted by the particles' heatmap, and those of the rest.

    `weight` is the weight of each voxel in them.
    """
    square = jnp.square(predicted - target)
    if weight is not None:
        square = square * weight
    if config.kind == "weighted":
        return jnp.mean(square * target), config.alpha * jnp.mean(square)
    devices = 1 if axis is None else lax.axis_size(axis)

    def share(part: Float[Array, "b c d h w"]) -> Float[Array, ""]:
        total = jnp.sum(part if weight is None else part * weight)
        if axis is not None:
            total = lax.psum(total, axis)
        return devices * jnp.sum(square * part) / (total + config.epsilon)

    return share(target), share(1 - target)


def sample_losses(predicted: Float[Array, "b c d h w"], target: Float[Array, "b c d h w"]) -> Float[Array, " b"]:
    """Mean squared error of each sample, to find the one at fault."""
    return jnp.mean(jnp.square(predicted - target), axis=(1, 2, 3, 4))
