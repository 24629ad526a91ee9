"""Batches from phantoms that are made while a training runs: no two steps see the same sample."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from jaxcryo.config import TrainConfig
from jaxcryo.data.collection import Collection
from jaxcryo.data.samples import Batch, choose_windows, sample_keys
from jaxcryo.errors import InputError
from jaxcryo.training.step import replicate

_FAR = -1e6
"""A position that is in no window."""
_AHEAD_PER_WORKER = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sketch:
    """A phantom in the form that a training needs."""

    voxels: Float[NDArray[np.float16], "z y x"]
    """Normalized like the network's input."""
    centers_zyx_voxel: Float[NDArray[np.float32], "n 3"]
    type_index: Int[NDArray[np.int32], " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How phantoms are made and replaced."""

    shape_zyx: tuple[int, int, int] = (64, 192, 192)
    at_hand: int = 12
    """Phantoms that windows are cut from at any time, each with other settings."""
    steps_each: int = 4
    """After this many steps a new one replaces the oldest."""
    most_picks: int = 256
    """Most picks in one phantom; arrays keep their shapes, so that the step is compiled once."""
    workers: int = 1
    """Processes that make phantoms beside the training; the phantoms do not depend on their number."""

    @classmethod
    def holding(cls, patch_zyx: tuple[int, int, int]) -> LiveConfig:
        """Settings with phantoms large enough for windows of this size: twice as wide, and at least as deep as ice."""
        depth, height, width = patch_zyx
        return cls(shape_zyx=(max(64, depth), 2 * height, 2 * width))


class PhantomSource:
    """A source of samples for `fit` that makes its tomograms itself.

    Phantom number i is `make(i)`, in a process of its own. At step n windows are cut from the phantoms
    n // steps_each up to `at_hand` later: a function of the step alone, so that an interrupted training goes on as
    if it had not been. `make` is sent to other processes, so it must be picklable.
    """

    def __init__(
        self, make: Callable[[int], Sketch], config: TrainConfig, live: LiveConfig, *, epoch_steps: int, about: str
    ) -> None:
        if any(n < w for n, w in zip(live.shape_zyx, config.model.patch_zyx, strict=True)):
            raise InputError(
                f"phantoms of {live.shape_zyx} voxels (z, y, x) are smaller than a window of {config.model.patch_zyx}"
            )
        self._make, self._config, self._live = make, config, live
        self._epoch_steps, self._about = epoch_steps, about
        share = config.optim.batch // jax.process_count()
        self._places = np.arange(jax.process_index() * share, (jax.process_index() + 1) * share)
        self._pool = concurrent.futures.ProcessPoolExecutor(
            live.workers, mp_context=multiprocessing.get_context("spawn"), initializer=_single_thread
        )
        self._cpu = jax.local_devices(backend="cpu")[0]
        self._coming: collections.OrderedDict[int, concurrent.futures.Future[Sketch]] = collections.OrderedDict()
        self._slots: list[tuple[int, Sketch] | None] = [None] * live.at_hand
        self._current: tuple[int, Collection] | None = None
        self.waited_seconds = 0.0
        """Seconds spent waiting for phantoms."""

    @property
    def epoch_steps(self) -> int:
        """As given: a training on phantoms has no epochs."""
        return self._epoch_steps

    @property
    def about(self) -> str:
        """What it draws from, for people."""
        return self._about

    def batch(self, step: int) -> Batch:
        """The batch of a step, as `SampleSource` says."""
        collection = self._collection_of(step)
        rows = self._rows(step)
        with jax.default_device(self._cpu):
            places = np.asarray(self._choose(collection, rows, np.int32(step)))
        windows = np.stack([self._cut(p) for p in places])
        devices = jax.local_device_count()
        return Batch(
            collection=replicate(collection),
            rows=rows.reshape(devices, -1, 4),
            windows=windows.reshape(devices, -1, *self._config.model.patch_zyx),
        )

    def run_name(self, step: int, run: int) -> str:
        """The number of the phantom in a slot."""
        slot = self._slots[run]
        return f"phantom {slot[0]}" if slot else f"phantom in slot {run} at step {step}"

    def close(self) -> None:
        """Ends the processes; what they were making is lost."""
        for future in self._coming.values():
            future.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _rows(self, step: int) -> Int[NDArray[np.int32], "b 4"]:
        """A window anywhere in any current phantom."""
        rng = np.random.default_rng([self._config.seed, step])
        room = np.array(self._live.shape_zyx) - np.array(self._config.model.patch_zyx) + 1
        batch = self._config.optim.batch
        rows = np.concatenate(
            [rng.integers(self._live.at_hand, size=(batch, 1)), rng.integers(0, room, size=(batch, 3))], axis=1
        )
        return rows.astype(np.int32)[self._places]

    def _cut(self, place: Int[NDArray[np.int32], " 4"]) -> Float[NDArray[np.float32], "d h w"]:
        slot = self._slots[int(place[0])]
        assert slot is not None
        z, y, x = (slice(s, s + n) for s, n in zip(place[1:].tolist(), self._config.model.patch_zyx, strict=True))
        return slot[1].voxels[z, y, x].astype(np.float32)

    @functools.cached_property
    def _choose(self) -> Callable[..., jax.Array]:
        config, places = self._config, self._places
        key = jax.random.key(config.seed)

        def choose(collection: Collection, rows: jax.Array, step: jax.Array) -> jax.Array:
            keys = sample_keys(key, step, places)
            return choose_windows(collection, rows, keys=keys, patch_zyx=config.model.patch_zyx, config=config.crop)

        return jax.jit(choose)

    def _collection_of(self, step: int) -> Collection:
        first = step // self._live.steps_each
        if self._current is None or self._current[0] != first:
            for number in range(first, first + self._live.at_hand):
                slot = number % self._live.at_hand
                if self._slots[slot] is None or self._slots[slot][0] != number:  # type: ignore[index]
                    self._slots[slot] = (number, self._made(number))
            self._ask(first + self._live.at_hand)
            with jax.default_device(self._cpu):
                laid_out = _lay_out([s[1] for s in self._slots if s], self._config.model.classes, self._live)
            self._current = (first, laid_out)
        return self._current[1]

    def _ask(self, first: int) -> None:
        """Starts to make the phantoms from `first` on, ahead of their use."""
        for number in range(first, first + max(self._live.workers * _AHEAD_PER_WORKER, 2)):
            if number not in self._coming:
                self._coming[number] = self._pool.submit(self._make, number)

    def _made(self, number: int) -> Sketch:
        if number not in self._coming:
            self._ask(number)
        began = time.monotonic()
        sketch = self._coming.pop(number).result()
        self.waited_seconds += time.monotonic() - began
        if len(sketch.type_index) > self._live.most_picks:
            raise InputError(
                f"phantom {number} has {len(sketch.type_index)} particles; at most {self._live.most_picks} are laid out"
            )
        return sketch


def _lay_out(sketches: list[Sketch], types: int, live: LiveConfig) -> Collection:
    """The picks of the current phantoms in arrays of fixed shapes; the voxels stay where they are."""
    count, most = len(sketches), live.most_picks
    by_run = np.full((count, most, 3), _FAR, np.float32)
    kinds = np.zeros((count, most), np.int32)
    flat = np.full((count * most, 3), _FAR, np.float32)
    by_type = np.zeros((types, count * most), np.int32)
    filled = np.zeros(types, np.int32)
    for run, sketch in enumerate(sketches):
        n = len(sketch.type_index)
        by_run[run, :n], kinds[run, :n] = sketch.centers_zyx_voxel, sketch.type_index
        flat[run * most : run * most + n] = sketch.centers_zyx_voxel
        for kind in range(types):
            mine = run * most + np.flatnonzero(sketch.type_index == kind)
            by_type[kind, filled[kind] : filled[kind] + len(mine)] = mine
            filled[kind] += len(mine)
    everything = np.flatnonzero(flat[:, 0] > _FAR)
    for kind in np.flatnonzero(filled == 0).tolist():  # none at hand: a window around any particle instead
        by_type[kind, : len(everything)], filled[kind] = everything, len(everything)
    return Collection(
        volumes=None,
        shapes_zyx=jnp.asarray(np.tile(np.array(live.shape_zyx, np.int32), (count, 1))),
        picks_zyx_voxel=jnp.asarray(by_run),
        picks_type=jnp.asarray(kinds),
        flat_zyx_voxel=jnp.asarray(flat),
        flat_run=jnp.asarray(np.repeat(np.arange(count, dtype=np.int32), most)),
        by_type=jnp.asarray(by_type),
        type_count=jnp.asarray(filled),
    )


def _single_thread() -> None:
    """A worker uses one core and leaves the others to the training."""
    import scipy.fft

    scipy.fft.set_workers(1)
