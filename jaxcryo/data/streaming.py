"""Windows cut from files in the background, for collections that do not fit on the device."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from numpy.typing import NDArray

from jaxcryo.config import CropConfig, IntensityConfig
from jaxcryo.data.collection import Collection
from jaxcryo.data.samples import choose_windows, sample_keys
from jaxcryo.domain import Volume
from jaxcryo.tomogram.normalization import normalization
from jaxcryo.tomogram.statistics import surveyed

_AHEAD = 4
_THREADS = 4


def streamed_windows(
    volumes: Sequence[Volume],
    collection: Collection,
    rows_of: Callable[[int], Int[NDArray[np.int32], "b 4"]],
    places_in_batch: Int[NDArray[np.int32], " b"],
    *,
    first_step: int,
    key: Key[Array, ""],
    patch_zyx: tuple[int, int, int],
    crop: CropConfig,
    intensity: IntensityConfig,
) -> Iterator[Float[NDArray[np.float32], "b d h w"]]:
    """The normalised windows of one step after another, a few steps ahead of their use.

    `rows_of` gives the grid rows of a step that this host draws, `places_in_batch` where they stand in the whole batch.
    They are the windows that `draw_samples` would have cut itself.
    """
    cpu = jax.local_devices(backend="cpu")[0]
    volumes = volumes if intensity.rule == "fixed" else [surveyed(v) for v in volumes]
    rules = [normalization(v, intensity) for v in volumes]
    with jax.default_device(cpu):
        collection = jax.device_put(collection, cpu)
        choose = jax.jit(
            lambda rows, step: choose_windows(
                collection, rows, keys=sample_keys(key, step, places_in_batch), patch_zyx=patch_zyx, config=crop
            )
        )

    def cut(place: Int[NDArray[np.int32], " 4"]) -> Float[NDArray[np.float32], "d h w"]:
        run, *start = map(int, place)
        z, y, x = (slice(s, s + n) for s, n in zip(start, patch_zyx, strict=True))
        return rules[run](volumes[run].read_box(z, y, x))

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        waiting: collections.deque[list[concurrent.futures.Future[NDArray[np.float32]]]] = collections.deque()
        step = first_step
        while True:
            while len(waiting) < _AHEAD:
                with jax.default_device(cpu):
                    places = np.asarray(choose(rows_of(step), np.int32(step)))
                waiting.append([pool.submit(cut, p) for p in places])
                step += 1
            yield np.stack([future.result() for future in waiting.popleft()])
