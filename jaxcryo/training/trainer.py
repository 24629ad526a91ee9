"""The loop over steps: dispatch, read what the step before measured, validate, save."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxcryo.domain import Picks, Volume
from jaxcryo.models import Network
from jaxcryo.training import hosts
from jaxcryo.training.checkpoint import BEST, LAST, Checkpoints, RunDescription
from jaxcryo.training.held_out_page import HeldOutPage
from jaxcryo.training.record import Record
from jaxcryo.training.state import TrainState
from jaxcryo.training.step import Metrics, first_copy
from jaxcryo.training.validation import Validation, flax_engine, validate
from jaxcryo.weights import TrainedModel, save_model

REFIT_STEPS = 25
"""A training that has to end in time fits its length to the measured speed this often."""


class TrainingStopped(Exception):  # noqa: N818
    """A training ended before its end; the message says why, and what is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A tomogram with its picks."""

    volume: Volume
    picks: Picks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """When things happen."""

    first: int
    total: int
    validate_every: int
    save_every_seconds: float
    deadline: float | None
    """On the monotonic clock; the total number of steps is then fitted to it."""


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """Runs one training; what it has to know beside the state."""

    description: RunDescription
    folder: pathlib.Path
    network: Network
    held_out: Example
    page: HeldOutPage
    record: Record
    checkpoints: Checkpoints
    say: Callable[[str], None]
    best: float = -1.0
    validation_seconds: float = 0.0

    def run(
        self, step: Callable[[TrainState, int], tuple[TrainState, Metrics]], state: TrainState, timing: Timing,
        stop: list[int],
    ) -> tuple[Validation, int]:  # fmt: skip
        """Dispatches step after step; what step n - 1 measured is read while step n runs.

        Returns the last validation and the number of steps.

        Raises:
            TrainingStopped: `stop` holds a signal, or the loss is not a number.
        """
        pending: Metrics | None = None
        saved = marked = time.monotonic()
        n = marked_step = timing.first
        total = timing.total
        with tqdm(
            total=total, initial=n, unit="step", desc=self.description.config.arch, mininterval=1.0,
            disable=not hosts.is_first(),
        ) as bar:  # fmt: skip
            while n < total:
                state, metrics = step(state, n)
                if pending is not None:
                    self._read(n, pending, bar)
                pending, n = metrics, n + 1
                bar.update()
                if stop:
                    self._read(n, pending, bar)
                    self._leave(state, n, stop[0])
                done = n - timing.first
                if timing.deadline is not None and done % REFIT_STEPS == 0:
                    now = time.monotonic()
                    if done > REFIT_STEPS:  # the first steps compile
                        pace = (now - marked) / (n - marked_step)
                        left = max(timing.deadline - now - self.validation_seconds, 0)
                        total = bar.total = n + int(left / pace)
                        state = _with_total(state, max(total, 1))
                    marked, marked_step = now, n
                if n % timing.validate_every == 0 and n < total:
                    self._read(n, pending, bar)
                    pending = None
                    self._validate(state, n, bar)
                    marked, marked_step = time.monotonic(), n
                if time.monotonic() - saved > timing.save_every_seconds:
                    self.checkpoints.save(first_copy(state))
                    saved = time.monotonic()
            if pending is not None:
                self._read(n, pending, bar)
            result = self._validate(state, n, bar)
        self.checkpoints.wait()
        return result, n

    def _read(self, n: int, metrics: Metrics, bar: Any) -> None:
        host = {k: np.asarray(v.addressable_shards[0].data)[0] for k, v in metrics.items() if k not in _PER_SAMPLE}
        value, norm, rate = float(host["loss"]), float(host["gradient_norm"]), float(host["learning_rate"])
        if not np.isfinite(value) and self.description.config.precision != "float16":
            self._refuse(n, value, norm, metrics)
        speed = (bar.format_dict["rate"] or 0.0) * self.description.config.optim.batch
        self.record.step(n, value, rate, norm, speed)
        score = f", F4 {self.best:.3f}" if self.best >= 0 else ""
        bar.set_postfix_str(f"loss {value:.4f}{score}, {speed:.1f} samples/s{_memory()}", refresh=False)

    def _refuse(self, n: int, value: float, norm: float, metrics: Metrics) -> None:
        losses, places = (
            np.concatenate([np.asarray(s.data)[0] for s in metrics[k].addressable_shards]) for k in _PER_SAMPLE
        )
        off = np.flatnonzero(~np.isfinite(losses))
        where = "no single sample of this host is off"
        if len(off):
            run, z, y, x = places[off[0]]
            name = self.description.train_runs[run]
            where = f"the first sample that is off was cut from {name} at voxel z={z} y={y} x={x}"
        raise TrainingStopped(
            f"the loss of step {n} is {value} (gradient norm {norm:.3g}); {where}. The last checkpoint in "
            f"{self.folder} is good; lower the learning rate or look at that place"
        )

    def _validate(self, state: TrainState, n: int, bar: Any) -> Validation:
        began = time.monotonic()
        config, held_out = self.description.config, self.held_out
        host = first_copy(state)
        engine = flax_engine(self.network, host.ema_params, host.ema_stats, config, name=f"step {n}")

        def show(done: int, count: int) -> None:
            bar.set_postfix_str(f"validating on {held_out.volume.name}: {done} of {count} windows")

        overlay = self.page.overlay() if hosts.is_first() else None
        result = validate(
            engine,
            held_out.volume,
            held_out.picks,
            self.description.types,
            config,
            on_windows=show,
            on_slab=None if overlay is None else overlay.add,
        )
        if overlay is not None:
            self._keep(host, n, result)
            self.page.write(n, result, overlay, seconds=time.monotonic() - began)
        self.validation_seconds = time.monotonic() - began
        self.checkpoints.save(host)
        bar.clear()
        self.say(
            f"step {n}: weighted F4 {result.chosen.weighted_f4:.3f} on {held_out.volume.name} "
            f"({result.best.weighted_f4:.3f} at the best thresholds), {self.validation_seconds:.0f} s"
        )
        return result

    def _keep(self, host: TrainState, n: int, result: Validation) -> None:
        score = result.chosen.weighted_f4
        model = TrainedModel(
            config=self.description.config,
            types=result.types,
            spacing_angstrom=self.description.spacing_angstrom,
            skewness=self.description.skewness,
            params=host.ema_params,
            stats=host.ema_stats,
            source=f"{self.folder.name}, step {n}, fold {self.description.fold}, "
            f"weighted F4 {score:.3f} on {self.held_out.volume.name}",
        )
        self.record.validation(n, result)
        save_model(self.folder / LAST, model)
        if score >= self.best:
            self.best = score
            save_model(self.folder / BEST, model)

    def _leave(self, state: TrainState, n: int, number: int) -> None:
        self.checkpoints.save(first_copy(state))
        self.checkpoints.wait()
        raise TrainingStopped(
            f"{signal.Signals(number).name} came: step {n} is saved in {self.folder}; the same command continues"
        )


_PER_SAMPLE = ("sample_loss", "place")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGTERM or SIGINT enters; a second one acts as usual."""
    seen: list[int] = []
    previous: dict[int, Any] = {}

    def handle(number: int, _: object) -> None:
        seen.append(number)
        signal.signal(number, previous[number])

    for number in map(int, (signal.SIGTERM, signal.SIGINT)):
        previous[number] = signal.signal(number, handle)
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _with_total(state: TrainState, total: int) -> TrainState:
    return dataclasses.replace(state, total_steps=jnp.zeros_like(state.total_steps) + total)


def _memory() -> str:
    statistics = jax.local_devices()[0].memory_stats()
    return f", {statistics['bytes_in_use'] / 1e9:.1f} GB" if statistics else ""
