"""One training step, and its spread over devices: the only file that names pmap."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Key
from numpy.typing import NDArray

from jaxcryo.config import TrainConfig
from jaxcryo.data.samples import Batch, draw_known, draw_samples, sample_keys
from jaxcryo.errors import InputError
from jaxcryo.models import Network, Weights
from jaxcryo.training.loss import loss, loss_parts, sample_losses
from jaxcryo.training.state import TrainState, learning_rate, optimizer
from jaxcryo.training.teacher import filled_in

AXIS = "devices"
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    key: Key[Array, ""],
    network: Network,
    config: TrainConfig,
    sigma_voxel: Float[NDArray[np.float32], " c"],
    axis: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Draws a batch of samples, takes one optimizer step, updates the averages.

    Sample i of a step has the same key on any number of devices. Gradients that are not finite change nothing but the
    loss scale; the metrics say so.
    """
    rows = jnp.asarray(batch.rows)
    first = 0 if axis is None else lax.axis_index(axis) * len(rows)
    step_key = jax.random.fold_in(key, state.step)
    keys = sample_keys(key, state.step, first + jnp.arange(len(rows)))
    windows, targets, places = draw_samples(
        batch.collection,
        rows,
        None if batch.windows is None else jnp.asarray(batch.windows),
        keys=keys,
        patch_zyx=config.model.patch_zyx,
        sigma_voxel=sigma_voxel,
        crop=config.crop,
        augmentation=config.augment,
        target=config.target,
    )
    weights = None
    known = draw_known(
        batch.collection, places, keys=keys, patch_zyx=config.model.patch_zyx, augmentation=config.augment
    )
    if known is not None and config.partial is not None:
        answers = _answers(network, state, windows, config.optim.parts)
        progress = state.step / state.total_steps
        targets, weights = filled_in(targets, known, answers, progress, config.partial, axis=axis)
    share = _mixing(jax.random.fold_in(step_key, config.optim.batch), config)

    def objective(
        params: Weights, stats: Weights, part: tuple[Array, tuple[Array, Array | None], tuple[Array, Array | None]]
    ) -> tuple[Array, tuple[Weights, Array, Array]]:
        x, (y, weight), (other, its_weight) = part
        predicted, stats = network.apply_train(params, stats, x)
        parts = share * jnp.stack(loss_parts(predicted, y, config.loss, weight=weight, axis=axis))
        if config.augment.mixup_probability > 0:
            its_parts = loss_parts(predicted, other, config.loss, weight=its_weight, axis=axis)
            parts = parts + (1 - share) * jnp.stack(its_parts)
        return parts.sum() * state.loss_scale.scale, (stats, parts, sample_losses(predicted, y))

    mixed = share * windows + (1 - share) * _partners(windows)
    wanted = (targets, weights)
    gradients, stats, parts, each = _accumulated(
        objective,
        state.params,
        state.stats,
        (mixed, wanted, jax.tree.map(_partners, wanted)),
        config.optim.parts,
    )
    if axis is not None:
        gradients, parts = lax.pmean((gradients, parts), axis)
        stats = lax.pmean(stats, axis)
    gradients = jax.tree.map(lambda g: g / state.loss_scale.scale, gradients)
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(norm)
    rate = learning_rate(state.step, state.total_steps, config.optim)
    updates, opt_state = optimizer(config.optim).update(gradients, state.optimizer, state.params)
    params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
    moved = dataclasses.replace(
        state,
        params=params,
        stats=stats,
        optimizer=opt_state,
        ema_params=_averaged(state.ema_params, params, state.step, config),
        ema_stats=_averaged(state.ema_stats, stats, state.step, config),
    )
    kept: TrainState = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, state)
    scale = state.loss_scale.next(finite) if config.precision == "float16" else state.loss_scale
    metrics = {
        "loss": parts.sum(),
        "loss_positive": parts[0],
        "loss_negative": parts[1],
        "gradient_norm": norm,
        "learning_rate": rate,
        "loss_scale": state.loss_scale.scale,
        "sample_loss": each,
        "place": places,
    }
    return dataclasses.replace(kept, step=state.step + 1, loss_scale=scale), metrics


def over_devices(
    network: Network,
    config: TrainConfig,
    sigma_voxel: Float[NDArray[np.float32], " c"],
    devices: Sequence[jax.Device] | None = None,
) -> jax.stages.Wrapped:
    """`train_step` replicated over devices (None: all of all processes).

    It takes this process's share of a batch, every array with the local devices as its first axis.

    Raises:
        InputError: the batch does not divide.
    """
    parts = (jax.device_count() if devices is None else len(devices)) * config.optim.parts
    if config.optim.batch % parts:
        raise InputError(
            f"a batch of {config.optim.batch} samples cannot be shared out over {parts} devices and accumulated parts"
        )
    if config.augment.mixup_probability > 0 and config.optim.batch // parts % 2:
        raise InputError(f"mixup pairs samples: {config.optim.batch} over {parts} parts leaves an odd number in each")
    step = functools.partial(
        train_step,
        key=jax.random.key(config.seed),
        network=network,
        config=config,
        sigma_voxel=sigma_voxel,
        axis=AXIS,
    )
    return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=devices)


def kept_bytes(network: Network, config: TrainConfig, state: TrainState) -> int:
    """What the backward pass of a whole batch asks to be kept on each device, found without compiling anything.

    `state` is replicated.
    """
    local = len(state.step)
    samples = (local, config.optim.batch // jax.device_count())
    windows = jax.ShapeDtypeStruct((*samples, *config.model.patch_zyx), jnp.float32)
    targets = jax.ShapeDtypeStruct((*samples, config.model.classes, *config.model.patch_zyx), jnp.float32)

    def kept(params: Weights, stats: Weights, x: Array, y: Array) -> list[Array]:
        pullback = jax.vjp(lambda p: loss(network.apply_train(p, stats, x)[0], y, config.loss), params)[1]
        return jax.tree.leaves(pullback)

    leaves = jax.eval_shape(jax.vmap(kept, axis_name=AXIS), state.params, state.stats, windows, targets)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) // local


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """One copy of every array per local device, along a new first axis."""
    n = jax.local_device_count() if devices is None else len(devices)
    # The same axis name as the step's, so that the step compiles once for this and for its own results.
    copy = jax.pmap(lambda t, _: t, axis_name=AXIS, in_axes=(None, 0), devices=devices)
    return copy(tree, np.zeros(n))


def first_copy(tree: Any) -> Any:
    """The first local device's copy of a replicated tree, on the host."""
    return jax.tree.map(lambda a: np.asarray(a.addressable_shards[0].data)[0], tree)


def _mixing(key: Key[Array, ""], config: TrainConfig) -> Float[Array, ""]:
    """The weight of a sample against its partner: uniform, i.e. Beta(1, 1), or 1 in batches without mixup."""
    on_key, share_key = jax.random.split(key)
    on = jax.random.bernoulli(on_key, float(config.augment.mixup_probability))
    return jnp.where(on, jax.random.uniform(share_key), 1.0)


def _partners(batch: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
    """Each sample's partner in mixup: its neighbor.

    Samples are independent of their place in the batch, so this is as good as a random pairing, and partners are on one
    device whatever their number.
    """
    if len(batch) % 2:
        return batch
    return batch.reshape(-1, 2, *batch.shape[1:])[:, ::-1].reshape(batch.shape)


def _answers(
    network: Network, state: TrainState, windows: Float[Array, "b d h w"], parts: int
) -> Float[Array, "b c d h w"]:
    """Heatmaps of the averaged weights, without gradients."""
    answers = [network.apply(state.ema_params, state.ema_stats, part) for part in jnp.split(windows, parts)]
    return lax.stop_gradient(jnp.concatenate(answers))


def _accumulated(
    objective: Callable[..., Any], params: Weights, stats: Weights, batch: tuple[Any, ...], parts: int
) -> tuple[Weights, Weights, Array, Array]:
    """Mean gradient and terms of the loss over `parts` slices of the batch; each slice updates the statistics."""
    gradient = jax.grad(objective, has_aux=True)
    if parts == 1:
        gradients, (stats, terms, each) = gradient(params, stats, batch)
        return gradients, stats, terms, each
    slices = jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), batch)

    def one(carry: tuple[Weights, Weights, Array], part: Any) -> tuple[tuple[Weights, Weights, Array], Array]:
        total, moving, terms = carry
        new, (moving, part_terms, each) = gradient(params, moving, part)
        return (jax.tree.map(jnp.add, total, new), moving, terms + part_terms), each

    start = (jax.tree.map(jnp.zeros_like, params), stats, jnp.zeros(2))
    (total, stats, terms), each = lax.scan(one, start, slices)
    return jax.tree.map(lambda g: g / parts, total), stats, terms / parts, each.reshape(-1)


def _averaged(average: Weights, new: Weights, step: Array, config: TrainConfig) -> Weights:
    decay = jnp.asarray(config.optim.ema_decay)
    if config.optim.ema_warmup:
        decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(new, average, 1 - decay)
