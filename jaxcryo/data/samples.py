"""Training samples: a pure function of the collection, grid rows and keys."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key
from numpy.typing import NDArray

from jaxcryo.config import AugmentConfig, CropConfig, TargetConfig
from jaxcryo.data.augment import augment, augment_known, each
from jaxcryo.data.collection import Collection
from jaxcryo.data.targets import draw_targets


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step draws its samples from, on one device; before that, with a first axis for devices."""

    collection: Collection
    rows: Int[ArrayLike, "*k b 4"]
    """Run, z, y, x of each window of the epoch."""
    windows: Float[ArrayLike, "*k b d h w"] | None = None
    """The voxels of the windows from `choose_windows`, if the collection has no volumes."""


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
    center = jnp.round(collection.flat_zyx_voxel[pick]).astype(jnp.int32)
    around = center - jax.random.randint(place_key, (3,), 0, patch)
    near = jax.random.bernoulli(near_key, float(config.near_pick))
    run = jnp.where(near, collection.flat_run[pick], row[0])
    start = jnp.clip(jnp.where(near, around, moved), 0, collection.shapes_zyx[run] - patch)
    return jnp.concatenate([run[None], start])


def sample_keys(key: Key[Array, ""], step: Int[ArrayLike, ""], places: Int[ArrayLike, " b"]) -> Key[Array, " b"]:
    """The keys of samples by their places in a step's whole batch, whichever device draws them."""
    step_key = jax.random.fold_in(key, step)
    return jax.vmap(lambda i: jax.random.fold_in(step_key, i))(jnp.asarray(places))


def choose_windows(
    collection: Collection,
    rows: Int[ArrayLike, "b 4"],
    *,
    keys: Key[Array, " b"],
    patch_zyx: tuple[int, int, int],
    config: CropConfig,
) -> Int[Array, "b 4"]:
    """Run, z, y, x of the windows that `draw_samples` cuts for the same rows and keys."""
    return jax.vmap(
        lambda row, key: choose_window(
            collection, row, key=jax.random.split(key)[0], patch_zyx=patch_zyx, config=config
        )
    )(rows, keys)


def cut_windows(
    volumes: Float[Array, "r z y x"], places: Int[Array, "b 4"], patch_zyx: tuple[int, int, int]
) -> Float[Array, "b d h w"]:
    """The voxels at run, z, y, x."""
    # One slice per sample, unrolled: inside a loop XLA would copy all volumes into the loop's state.
    return jnp.concatenate([lax.dynamic_slice(volumes, tuple(p), (1, *patch_zyx)) for p in places], axis=0)


def draw_known(
    collection: Collection,
    places: Int[Array, "b 4"],
    *,
    keys: Key[Array, " b"],
    patch_zyx: tuple[int, int, int],
    augmentation: AugmentConfig,
) -> Float[Array, "b c d h w"] | None:
    """The known voxels of the samples that `draw_samples` cut here with these keys; None if all are known."""
    known = collection.known
    if known is None:
        return None
    classes = known.shape[1]
    windows = [lax.dynamic_slice(known, (p[0], 0, *p[1:]), (1, classes, *patch_zyx)) for p in places]
    cut = jnp.concatenate(windows, axis=0).astype(jnp.float32)
    return each(lambda k, key: augment_known(k, key=jax.random.split(key)[1], config=augmentation), cut, keys)


def draw_samples(
    collection: Collection,
    rows: Int[ArrayLike, "b 4"],
    windows: Float[Array, "b d h w"] | None = None,
    *,
    keys: Key[Array, " b"],
    patch_zyx: tuple[int, int, int],
    sigma_voxel: Float[NDArray[np.float32], " c"],
    crop: CropConfig,
    augmentation: AugmentConfig,
    target: TargetConfig,
) -> tuple[Float[Array, "b d h w"], Float[Array, "b c d h w"], Int[Array, "b 4"]]:
    """Windows, target heatmaps, and run, z, y, x of where each window was cut; a sample depends only on its own key.

    `windows` are the voxels of the windows from `choose_windows`, if the collection itself has no volumes.
    """
    places = choose_windows(collection, rows, keys=keys, patch_zyx=patch_zyx, config=crop)
    if windows is None:
        if collection.volumes is None:
            raise ValueError("a collection without volumes needs the windows")
        windows = cut_windows(collection.volumes, places, patch_zyx)

    def change(window: Array, place: Array, key: Array) -> tuple[Array, Array]:
        picks = collection.picks_zyx_voxel[place[0]] - place[1:]
        return augment(window, picks, key=jax.random.split(key)[1], config=augmentation)

    windows, picks = each(change, windows, places, keys)
    heatmaps = draw_targets(
        picks, collection.picks_type[places[:, 0]], sigma_voxel=sigma_voxel, shape_zyx=patch_zyx, config=target
    )
    return windows, heatmaps, places
