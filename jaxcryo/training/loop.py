"""A training from its first step, or from wherever it was cut off, to the end."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxcryo.config import TrainConfig
from jaxcryo.data.collection import collect, epoch_grid, rows_of_step
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.domain import ParticleType, Picks, Volume
from jaxcryo.errors import InputError
from jaxcryo.models import Network, Weights, build
from jaxcryo.training.checkpoint import BEST, LAST, Checkpoints, RunDescription, describe
from jaxcryo.training.record import Record
from jaxcryo.training.state import TrainState, initial_state
from jaxcryo.training.step import AXIS, Metrics, Step, first_copy, over_devices, replicate
from jaxcryo.training.validation import Validation, flax_engine, validate
from jaxcryo.weights import TrainedModel, save_model

_REFIT_STEPS = 25
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


class TrainingStopped(Exception):  # noqa: N818
    """A training ended before its end; the message says why, and what is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How long to train: the config's epochs unless steps or minutes are given."""

    steps: int | None = None
    minutes: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A tomogram with its picks."""

    volume: Volume
    picks: Picks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training ended with."""

    validation: Validation
    step: int
    files: tuple[pathlib.Path, ...]


def fit(
    examples: Sequence[Example],
    held_out: Example,
    description: RunDescription,
    folder: pathlib.Path,
    *,
    length: Length,
    initial: tuple[Weights, Weights] | None = None,
    save_every_seconds: float = 120,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains on `examples`, validates on `held_out`, leaves everything in `folder`; continues what is there.

    `initial` replaces the freshly drawn parameters and statistics of a new run.

    Raises:
        InputError: the folder holds another run, or the data cannot be used.
        TrainingStopped: a signal asked for it, or the loss is not a number.
    """
    began = time.monotonic()
    config, types = description.config, description.types
    resumed = describe(folder, description)
    collection = collect(
        [e.volume for e in examples],
        [e.picks for e in examples],
        config.intensity,
        config.model.patch_zyx,
        rounded=config.target.rounded,
    )
    grid = epoch_grid([e.volume.grid.shape_zyx for e in examples], config.model.patch_zyx, config.crop)
    epoch_steps = max(len(grid) // config.optim.batch, 1)
    network, params, stats = build(
        config.model,
        seed=config.seed,
        dtype=_DTYPES[config.precision],
        batch_axis=AXIS if config.sync_batch_norm else None,
    )
    if initial is not None:
        params, stats = initial
    total = length.steps or max(round(config.optim.epochs * epoch_steps), 1)
    state = initial_state(
        params, stats, total_steps=total, config=config.optim, half_precision=config.precision == "float16"
    )
    devices = jax.local_devices()
    sigma = sigmas_voxel(types, config.target, description.spacing_angstrom)
    step = over_devices(network, config, sigma, devices)
    with Checkpoints(folder) as checkpoints, _stop_signals() as stop:
        restored = checkpoints.restore(state) if resumed else None
        if restored is not None:
            state = restored
            say(f"continuing {folder} after step {int(state.step)} of {int(state.total_steps)}")
        elif resumed:
            say(f"{folder} has no checkpoint yet: starting again")
        say(
            f"{len(examples)} runs, {len(grid)} windows an epoch, batch {config.optim.batch}: "
            f"{epoch_steps} steps an epoch, "
            + (f"as many as {length.minutes:g} minutes allow" if length.minutes else f"{int(state.total_steps)} steps")
            + f"; {sum(v.size for v in params.values()) / 1e6:.1f} M parameters on "
            + f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
        )
        trainer = _Trainer(
            config=config,
            types=types,
            description=description,
            folder=folder,
            network=network,
            held_out=held_out,
            record=Record(folder, types, int(state.step)),
            checkpoints=checkpoints,
            say=say,
        )
        return trainer.run(
            step,
            replicate(state, devices),
            replicate(collection, devices),
            rows=lambda n: rows_of_step(grid, seed=config.seed, step=n, batch=config.optim.batch).reshape(
                len(devices), -1, 4
            ),
            first=int(state.step),
            total=int(state.total_steps),
            validate_every=max(round(config.validate_every_epochs * epoch_steps), 1),
            deadline=None if length.minutes is None else began + 60 * length.minutes,
            save_every_seconds=save_every_seconds,
            stop=stop,
        )


@dataclasses.dataclass(kw_only=True)
class _Trainer:
    config: TrainConfig
    types: tuple[ParticleType, ...]
    description: RunDescription
    folder: pathlib.Path
    network: Network
    held_out: Example
    record: Record
    checkpoints: Checkpoints
    say: Callable[[str], None]
    best: float = -1.0
    validation_seconds: float = 0.0

    def run(
        self,
        step: Step,
        state: TrainState,
        collection: object,
        *,
        rows: Callable[[int], np.ndarray],
        first: int,
        total: int,
        validate_every: int,
        deadline: float | None,
        save_every_seconds: float,
        stop: list[int],
    ) -> Outcome:
        """Dispatches step after step; what step n - 1 measured is read while step n runs."""
        pending: Metrics | None = None
        saved = marked = time.monotonic()
        marked_step, n, validation = first, first, None
        with tqdm(total=total, initial=first, unit="step", desc=self.config.arch, mininterval=1.0) as bar:
            while n < total:
                state, metrics = step(state, collection, rows(n))  # type: ignore[arg-type]
                if pending is not None:
                    self._read(n, pending, bar)
                pending, n = metrics, n + 1
                bar.update()
                now = time.monotonic()
                if deadline is not None and n - first >= _REFIT_STEPS and (n - first) % _REFIT_STEPS == 0:
                    pace = (now - marked) / (n - marked_step) if n - first > _REFIT_STEPS else None
                    if pace:
                        left = max(deadline - now - self.validation_seconds, 0)
                        total = bar.total = n + max(int(left / pace), 0)
                        state = _with_total(state, max(total, 1))
                    marked, marked_step = now, n
                if stop:
                    self._read(n, pending, bar)
                    self._leave(state, n, stop[0])
                if n % validate_every == 0 and n < total:
                    self._read(n, pending, bar)
                    pending = None
                    self._validate(state, n, bar)
                    marked, marked_step = time.monotonic(), n
                if time.monotonic() - saved > save_every_seconds:
                    self.checkpoints.save(first_copy(state))
                    saved = time.monotonic()
            if pending is not None:
                self._read(n, pending, bar)
            validation = self._validate(state, n, bar)
        self.checkpoints.wait()
        picture = self.record.draw()
        files = tuple(self.folder / f for f in (BEST, LAST, "config.json", "metrics.csv", "validation.csv"))
        return Outcome(validation=validation, step=n, files=(*files, picture))

    def _read(self, n: int, metrics: Metrics, bar: tqdm[None]) -> None:
        host = jax.tree.map(np.asarray, metrics)
        value = float(host["loss"].reshape(-1)[0])
        if not np.isfinite(value) and self.config.precision != "float16":
            worst = int(np.argmax(~np.isfinite(host["sample_loss"].reshape(-1))))
            run, z, y, x = host["place"].reshape(-1, 4)[worst]
            raise TrainingStopped(
                f"the loss of step {n} is {value} (gradient norm {float(host['gradient_norm'].reshape(-1)[0]):.3g}); "
                f"the first sample that is off was cut from {self.description.train_runs[run]} at voxel z={z} y={y} "
                f"x={x}. The last checkpoint in {self.folder} is good; lower the learning rate or look at that place"
            )
        speed = (bar.format_dict["rate"] or 0.0) * self.config.optim.batch
        self.record.step(
            n,
            value,
            float(host["learning_rate"].reshape(-1)[0]),
            float(host["gradient_norm"].reshape(-1)[0]),
            speed,
        )
        score = f", F4 {self.best:.3f}" if self.best >= 0 else ""
        bar.set_postfix_str(f"loss {value:.4f}{score}, {speed:.1f} samples/s", refresh=False)

    def _validate(self, state: TrainState, n: int, bar: tqdm[None]) -> Validation:
        began = time.monotonic()
        host = first_copy(state)
        engine = flax_engine(self.network, host.ema_params, host.ema_stats, self.config, name=f"step {n}")
        bar.set_postfix_str(f"validating on {self.held_out.volume.name}")
        result = validate(engine, self.held_out.volume, self.held_out.picks, self.types, self.config)
        self.validation_seconds = time.monotonic() - began
        self.record.validation(n, result)
        model = TrainedModel(
            config=self.config,
            types=result.types,
            spacing_angstrom=self.description.spacing_angstrom,
            params=host.ema_params,
            stats=host.ema_stats,
            source=f"{self.folder.name}, step {n}, fold {self.description.fold}, "
            f"weighted F4 {result.chosen.weighted_f4:.3f} on {self.held_out.volume.name}",
        )
        save_model(self.folder / LAST, model)
        if result.chosen.weighted_f4 >= self.best:
            self.best = result.chosen.weighted_f4
            save_model(self.folder / BEST, model)
        self.checkpoints.save(host)
        bar.clear()
        self.say(
            f"step {n}: weighted F4 {result.chosen.weighted_f4:.3f} on {self.held_out.volume.name} "
            f"({result.best.weighted_f4:.3f} at the best thresholds), {self.validation_seconds:.0f} s"
        )
        return result

    def _leave(self, state: TrainState, n: int, number: int) -> None:
        self.checkpoints.save(first_copy(state))
        self.checkpoints.wait()
        raise TrainingStopped(
            f"{signal.Signals(number).name} came: step {n} is saved in {self.folder}; the same command continues"
        )


def _with_total(state: TrainState, total: int) -> TrainState:
    return dataclasses.replace(state, total_steps=jnp.zeros_like(state.total_steps) + total)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that the first SIGTERM or SIGINT enters; a second one acts as usual."""
    seen: list[int] = []
    previous: dict[int, Any] = {}

    def handle(number: int, _: object) -> None:
        seen.append(number)
        signal.signal(number, previous[number])

    try:
        for number in map(int, (signal.SIGTERM, signal.SIGINT)):
            previous[number] = signal.signal(number, handle)
    except ValueError as error:  # not the main thread: whoever started it handles signals
        if previous:
            raise InputError(str(error)) from error
    try:
        yield seen
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
