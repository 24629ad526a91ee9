"""What a training takes from its starting model: tensors, heads by the names of types, and voxels surely empty."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from numpy.typing import NDArray

from jaxcryo.config import NetworkConfig
from jaxcryo.domain import ParticleType, Volume
from jaxcryo.models import Weights, build
from jaxcryo.picking.stitch import heatmap_slabs
from jaxcryo.training.validation import flax_model
from jaxcryo.weights import TrainedModel


def taken_over(
    own: Weights, given: Weights, config: NetworkConfig, types: Sequence[ParticleType], known: Sequence[ParticleType]
) -> tuple[Weights, int]:
    """`own` with the tensors of `given` that fit, and how many; channels go by the names of types."""
    more = {k: v.shape for k, v in build(dataclasses.replace(config, classes=config.classes + 1), seed=None)[1].items()}
    merged, taken = dict(own), 0
    names = [t.name for t in known]
    pairs = [(i, names.index(t.name)) for i, t in enumerate(types) if t.name in names]
    for key, value in given.items():
        if key not in own:
            continue
        shape = own[key].shape
        if key in more and more[key] != shape:  # it has channels for each type
            axis = next(a for a, (n, m) in enumerate(zip(shape, more[key], strict=True)) if n != m)
            fits = shape[:axis] + shape[axis + 1 :] == value.shape[:axis] + value.shape[axis + 1 :]
            if fits and pairs and shape[axis] // len(types) == value.shape[axis] // len(known):
                merged[key] = _by_name(own[key], value, axis, len(types), len(known), pairs)
                taken += 1
        elif shape == value.shape:
            merged[key] = value
            taken += 1
    return merged, taken


def far_below(
    model: TrainedModel, volume: Volume, types: Sequence[ParticleType], share: float
) -> Iterator[tuple[int, UInt8[NDArray[np.uint8], "c d y x"]]]:
    """1 where the model is sure that there is nothing, slab by slab: below a share of its thresholds.

    Each type is judged by its own heatmap; about types that the model lacks it is never sure.

    Raises:
        InputError: the volume cannot be read, or is smaller than a window.
    """
    network, _, _ = build(model.config.model, seed=None)
    opened = flax_model(network, model.params, model.stats, model.config, name=model.source)
    limits = share * np.array([t.threshold for t in model.types])[:, None, None, None]
    channel = {t.name: i for i, t in enumerate(model.types)}
    for slab in heatmap_slabs(volume, [opened]):
        low = np.asarray(slab.heatmap) < limits
        nowhere = np.zeros_like(low[0])  # the heatmaps of other types are low at particles of a new one too
        known = [low[channel[t.name]] if t.name in channel else nowhere for t in types]
        yield slab.z_start, np.stack(known).astype(np.uint8)


def _by_name(
    own: Float[Array, "*shape"],
    given: Float[Array, "*other"],
    axis: int,
    count: int,
    known: int,
    pairs: Sequence[tuple[int, int]],
) -> Float[Array, "*shape"]:
    """Channels are ordered by type first (`pixel_shuffle`)."""
    split = np.array(np.moveaxis(np.asarray(own), axis, 0).reshape(count, -1))
    source = np.moveaxis(np.asarray(given), axis, 0).reshape(known, -1)
    for i, j in pairs:
        split[i] = source[j]
    moved = np.moveaxis(np.asarray(own), axis, 0).shape
    return jnp.asarray(np.moveaxis(split.reshape(moved), 0, axis))
