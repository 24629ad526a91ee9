"""Windows cut from files in the background, for collections that do not fit on the device."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Sequence

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


class StreamedWindows:
    """The normalized windows of one step after another, prepared a few steps ahead of their use.

    `rows_of` returns the grid rows of a step that this process draws, `places_in_batch` their places in the batch. The
    windows are those that `draw_samples` would have cut itself.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        collection: Collection,
        rows_of: Callable[[int], Int[NDArray[np.int32], "b 4"]],
        places_in_batch: Int[NDArray[np.int32], " b"],
        *,
        key: Key[Array, ""],
        patch_zyx: tuple[int, int, int],
        crop: CropConfig,
        intensity: IntensityConfig,
    ) -> None:
        self._volumes = volumes if intensity.rule == "fixed" else [surveyed(v) for v in volumes]
        self._rules = [normalization(v, intensity) for v in self._volumes]
        self._rows_of, self._patch_zyx = rows_of, patch_zyx
        self._cpu = jax.local_devices(backend="cpu")[0]
        with jax.default_device(self._cpu):
            collection = jax.device_put(collection, self._cpu)
            self._choose = jax.jit(
                lambda rows, step: choose_windows(
                    collection, rows, keys=sample_keys(key, step, places_in_batch), patch_zyx=patch_zyx, config=crop
                )
            )
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        self._waiting: collections.deque[list[concurrent.futures.Future[NDArray[np.float32]]]] = collections.deque()
        self._next = 0
        """The step whose windows are next in line."""

    def of_step(self, step: int) -> Float[NDArray[np.float32], "b d h w"]:
        """The windows of a step; without waiting if it follows the last one that was asked for."""
        if step != self._next:
            self._drop()
            self._next = step
        while len(self._waiting) < _AHEAD:
            ahead = self._next + len(self._waiting)
            with jax.default_device(self._cpu):
                places = np.asarray(self._choose(self._rows_of(ahead), np.int32(ahead)))
            self._waiting.append([self._pool.submit(self._cut, p) for p in places])
        self._next += 1
        return np.stack([future.result() for future in self._waiting.popleft()])

    def close(self) -> None:
        """Ends the threads."""
        self._drop()
        self._pool.shutdown(cancel_futures=True)

    def _drop(self) -> None:
        for futures in self._waiting:
            for future in futures:
                future.cancel()
        self._waiting.clear()

    def _cut(self, place: Int[NDArray[np.int32], " 4"]) -> Float[NDArray[np.float32], "d h w"]:
        run, *start = map(int, place)
        z, y, x = (slice(s, s + n) for s, n in zip(start, self._patch_zyx, strict=True))
        box = self._rules[run](self._volumes[run].read_box(z, y, x))
        return np.pad(box, [(0, n - m) for n, m in zip(self._patch_zyx, box.shape, strict=True)])
