"""One training sample: a pure function of the collection, a grid row and a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key
from numpy.typing import NDArray

from jaxcryo.config import AugmentConfig, CropConfig, TargetConfig
from jaxcryo.data.augment import augment
from jaxcryo.data.collection import Collection
from jaxcryo.data.targets import draw_targets


def choose_window(
    collection: Collection,
    row: Int[Array, " 4"],
    *,
    key: Key[Array, ""],
    patch_zyx: tuple[int, int, int],
    config: CropConfig,
) -> Int[Array, " 4"]:
    """Run, z, y, x of a window: the grid's row with jitter, or one around a pick of a randomly chosen type."""
    grid_key, near_key, type_key, pick_key, place_key = jax.random.split(key, 5)
    patch = jnp.asarray(patch_zyx)
    jitter = jnp.asarray([max(int(n * config.jitter), 0) for n in patch_zyx])
    moved = row[1:] + jax.random.randint(grid_key, (3,), -jitter, jnp.maximum(jitter, 1 - jitter))
    kind = jax.random.randint(type_key, (), 0, len(collection.type_count))
    pick = collection.by_type[kind, jax.random.randint(pick_key, (), 0, collection.type_count[kind])]
    centre = jnp.round(collection.flat_zyx_voxel[pick]).astype(jnp.int32)
    around = centre - jax.random.randint(place_key, (3,), 0, patch)
    near = jax.random.bernoulli(near_key, float(config.near_pick))
    run = jnp.where(near, collection.flat_run[pick], row[0])
    start = jnp.clip(jnp.where(near, around, moved), 0, collection.shapes_zyx[run] - patch)
    return jnp.concatenate([run[None], start])


def draw_sample(
    collection: Collection,
    row: Int[Array, " 4"],
    *,
    key: Key[Array, ""],
    patch_zyx: tuple[int, int, int],
    sigma_voxel: Float[NDArray[np.float32], " c"],
    crop: CropConfig,
    augmentation: AugmentConfig,
    target: TargetConfig,
) -> tuple[Float[Array, "d h w"], Float[Array, "c d h w"], Int[Array, " 4"]]:
    """Window, target heatmaps, and run, z, y, x of where the window was cut."""
    choose_key, augment_key = jax.random.split(key)
    place = choose_window(collection, row, key=choose_key, patch_zyx=patch_zyx, config=crop)
    window = lax.dynamic_slice(collection.volumes, tuple(place), (1, *patch_zyx))[0]
    picks = collection.picks_zyx_voxel[place[0]] - place[1:]
    kinds = collection.picks_type[place[0]]
    window, picks = augment(window, picks, key=augment_key, config=augmentation)
    valid = jnp.ones(kinds.shape, bool)
    heatmaps = draw_targets(picks, kinds, valid, sigma_voxel=sigma_voxel, shape_zyx=patch_zyx, config=target)
    return window, heatmaps, place
