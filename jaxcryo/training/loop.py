"""The loop over steps: dispatch, read the metrics of the step before, validate, save."""

from __future__ import annotations

import dataclasses
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcryo.data.samples import Batch
from jaxcryo.errors import OutputError
from jaxcryo.interrupt import first_one_is_ours
from jaxcryo.models import Network
from jaxcryo.progress import Progress
from jaxcryo.training import distributed
from jaxcryo.training.held_out_page import HeldOutPage
from jaxcryo.training.record import METRICS, Record
from jaxcryo.training.run_folder import RunDescription, RunFolder
from jaxcryo.training.run_writer import RunWriter
from jaxcryo.training.source import Example, SampleSource
from jaxcryo.training.state import TrainState
from jaxcryo.training.step import Metrics, Step, first_copy
from jaxcryo.training.validation import Validation, flax_model, validate
from jaxcryo.weights import TrainedModel

REFIT_STEPS = 25
"""A training with a time limit adapts its length to the measured speed every so many steps."""
_AGREE_STEPS = 5
"""Several processes agree every so many steps on whether to stop or save: each has its own signals and clock."""


class TrainingStopped(Exception):  # noqa: N818
    """A training stopped early; the message says why, and what is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """When to validate, save and stop."""

    first: int
    total: int
    validate_every: int
    save_every_seconds: float
    deadline: float | None
    """A time on the monotonic clock; the total number of steps is adapted to it."""


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """Runs one training; holds all it needs besides the state."""

    description: RunDescription
    folder: RunFolder
    network: Network
    source: SampleSource
    held_out: Example
    page: HeldOutPage
    record: Record
    writer: RunWriter
    first_batch: Batch | None
    """Of the first step, where the source was asked for it already."""
    say: Callable[[str], None]
    began: float = dataclasses.field(default_factory=time.monotonic)
    validation_seconds: float = 0.0
    """Duration of the last validation."""
    validating_seconds: float = 0.0
    """Duration of all validations."""

    def run(self, step: Step, state: TrainState, timing: Timing, stop: list[int]) -> tuple[Validation, int]:
        """Dispatches step after step; the metrics of step n - 1 are read while step n runs.

        Returns the last validation and the number of steps.

        Raises:
            TrainingStopped: `stop` holds a signal, or the loss is non-finite.
        """
        pending: Metrics | None = None
        saved = marked = time.monotonic()
        n = marked_step = timing.first
        total = timing.total
        with Progress(
            total=total, initial=n, unit="step", desc=self.description.config.arch, mininterval=1.0,
            disable=not distributed.is_first(),
        ) as bar:  # fmt: skip
            batch, self.first_batch = self.first_batch, None
            while n < total:
                state, metrics = step(state, self.source.batch(n) if batch is None else batch)
                batch = None
                if pending is not None:
                    self._read(n, pending, bar)
                pending, n = metrics, n + 1
                bar.update()
                self.writer.look()
                due = time.monotonic() - saved > timing.save_every_seconds
                stopping, saving = 0, 0
                if jax.process_count() == 1 or n % _AGREE_STEPS == 0:
                    stopping, saving = distributed.agree(stop[0] if stop else 0, int(due))
                validating = n % timing.validate_every == 0 and n < total
                if stopping or saving or validating:  # a state is saved once its loss is known to be finite
                    self._read(n, pending, bar)
                    pending = None
                if stopping:
                    self._leave(state, n, stopping)
                done = n - timing.first
                if timing.deadline is not None and done % REFIT_STEPS == 0:
                    now = time.monotonic()
                    if done > REFIT_STEPS:  # the first steps compile
                        pace = (now - marked) / (n - marked_step)
                        left = max(timing.deadline - now - self.validation_seconds, 0)
                        (total,) = distributed.agree(n + int(left / pace))
                        bar.total = total
                        state = _with_total(state, max(total, 1))
                    marked, marked_step = now, n
                if validating and n < total:
                    self._validate(state, n, bar)
                    marked, marked_step = time.monotonic(), n
                if saving or (validating and n < total):
                    self.writer.save_if_possible(first_copy(state))
                    saved = time.monotonic()
            if pending is not None:
                self._read(n, pending, bar)
            result = self._validate(state, n, bar)
        try:
            self.writer.finish(first_copy(state))
        except OutputError as error:
            raise TrainingStopped(
                f"all {n} steps are done, but {error}. Free some space and rerun to finish; {self.writer.last_good()}"
            ) from error
        return result, n

    def _read(self, n: int, metrics: Metrics, bar: Any) -> None:
        host = {
            k: float(np.asarray(v.addressable_shards[0].data)[0]) for k, v in metrics.items() if k not in _PER_SAMPLE
        }
        config = self.description.config
        finite = np.isfinite(host["loss"]) and np.isfinite(host["gradient_norm"])
        # An overflow in float16 is normal as long as the loss scale can still fall.
        if not finite and (config.precision != "float16" or host["loss_scale"] <= 1):
            self._refuse(n, host, metrics)
        host["samples_per_second"] = (bar.format_dict["rate"] or 0.0) * config.optim.batch
        self.record.step(n, {name: host[name] for name in METRICS})
        score = f", F4 {self.writer.best:.3f}" if self.writer.best >= 0 else ""
        speed = f"{host['samples_per_second']:.1f} samples/s"
        bar.set_postfix_str(f"loss {host['loss']:.4f}{score}, {speed}, {memory_gb():.1f} GB", refresh=False)

    def _refuse(self, n: int, host: dict[str, float], metrics: Metrics) -> None:
        losses, places = (
            np.concatenate([np.asarray(s.data)[0] for s in metrics[k].addressable_shards]) for k in _PER_SAMPLE
        )
        bad = np.flatnonzero(~np.isfinite(losses))
        where = "no single sample of this process is non-finite"
        if len(bad):
            run, z, y, x = places[bad[0]].tolist()
            name = self.source.run_name(n - 1, run)
            where = f"the first non-finite sample was cut from {name} at voxel z={z} y={y} x={x}"
        raise TrainingStopped(
            f"the loss of step {n} is non-finite: {host['loss']} (positive part {host['loss_positive']:.3g}, "
            f"negative part {host['loss_negative']:.3g}, gradient norm {host['gradient_norm']:.3g}); {where}. "
            f"Nothing of that step was saved: {self.writer.last_good()}. Lower the learning rate (--lr), or look "
            "at that place"
        )

    def _validate(self, state: TrainState, n: int, bar: Any) -> Validation:
        began = time.monotonic()
        config, held_out = self.description.config, self.held_out
        host = first_copy(state)
        model = flax_model(self.network, host.ema_params, host.ema_stats, config, name=f"step {n}")

        def show(done: int, count: int) -> None:
            bar.set_postfix_str(f"validating on {held_out.volume.name}: {done} of {count} windows")

        overlay = self.page.overlay() if distributed.is_first() else None
        result = validate(
            model,
            held_out.volume,
            held_out.picks,
            self.description.types,
            config,
            on_windows=show,
            on_slab=None if overlay is None else overlay.add,
        )
        self.writer.validated(n, result, self._model(host, n, result))
        if overlay is not None:
            try:
                self.page.write(n, result, overlay, seconds=time.monotonic() - began)
            except OutputError as error:  # the next validation writes a new one
                self.say(f"warning: {error}")
        self.validation_seconds = time.monotonic() - began
        self.validating_seconds += self.validation_seconds
        share = self.validating_seconds / (time.monotonic() - self.began)
        bar.clear()
        self.say(
            f"step {n}: weighted F4 {result.chosen.weighted_f4_of_known:.3f} on {held_out.volume.name} "
            f"({result.best.weighted_f4_of_known:.3f} at the best thresholds), {self.validation_seconds:.1f} s; "
            f"validation took {share:.0%} of the time so far"
        )
        return result

    def _model(self, host: TrainState, n: int, result: Validation) -> TrainedModel:
        return TrainedModel(
            config=self.description.config,
            types=result.types,
            spacing_angstrom=self.description.spacing_angstrom,
            skewness=self.description.skewness,
            params=host.ema_params,
            stats=host.ema_stats,
            source=f"{self.folder.path.name}, step {n}, fold {self.description.fold}, "
            f"weighted F4 {result.chosen.weighted_f4_of_known:.3f} on {self.held_out.volume.name}",
        )

    def _leave(self, state: TrainState, n: int, number: int) -> None:
        name = signal.Signals(number).name
        try:
            self.writer.finish(first_copy(state))
        except OutputError as error:
            raise TrainingStopped(
                f"received {name}, but {error}. Free some space and rerun to resume; {self.writer.last_good()}"
            ) from error
        raise TrainingStopped(f"received {name}; saved step {n} in {self.folder}, rerun to resume")


_PER_SAMPLE = ("sample_loss", "place")


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list to which the first SIGTERM or SIGINT is added; a second one acts as usual."""
    seen: list[int] = []
    previous: dict[int, Any] = {}

    def handle(number: int, _: object) -> None:
        seen.append(number)
        signal.signal(number, previous[number])

    for number in map(int, (signal.SIGTERM, signal.SIGINT)):
        previous[number] = signal.signal(number, handle)
    try:
        with first_one_is_ours():
            yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _with_total(state: TrainState, total: int) -> TrainState:
    return dataclasses.replace(state, total_steps=jnp.zeros_like(state.total_steps) + total)


def memory_gb() -> float:
    """Memory in use by the first device, or on CPUs by this process."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        return float(statistics["bytes_in_use"] / 1e9)
    resident = pathlib.Path("/proc/self/statm")
    if resident.exists():
        return int(resident.read_text().split()[1]) * resource.getpagesize() / 1e9
    # Without such a file, the peak is used; in bytes on macOS, in kilobytes elsewhere.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
