"""A training from its first step, or from wherever it was cut off, to the end."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcryo.data.collection import Collection, collect, epoch_grid, rows_of_step
from jaxcryo.data.streaming import streamed_windows
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.errors import OutputError
from jaxcryo.models import Weights, build
from jaxcryo.training import distributed as hosts
from jaxcryo.training.checkpoint import BEST, LAST, Checkpoints, RunDescription, describe
from jaxcryo.training.held_out_page import FILE_NAME, HeldOutPage
from jaxcryo.training.loop import Example, Timing, Trainer, TrainingStopped, stop_signals
from jaxcryo.training.record import Record
from jaxcryo.training.result import Result, read_result, write_result
from jaxcryo.training.run_writer import Keeper
from jaxcryo.training.state import TrainState, initial_state
from jaxcryo.training.step import AXIS, Metrics, over_devices, replicate

__all__ = ["Example", "Length", "Outcome", "TrainingStopped", "fit"]

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
# Volumes stay on the device up to this size; beyond it windows are cut from the files.
_RESIDENT_BYTES_CPU = 6e9
_RESIDENT_SHARE_GPU = 0.3
_FILES = (BEST, LAST, "config.json", "metrics.csv", "validation.csv", "curves.png", "validation.png", FILE_NAME)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How long to train: the config's epochs unless steps or minutes are given."""

    steps: int | None = None
    minutes: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training ended with."""

    result: Result
    files: tuple[pathlib.Path, ...]
    was_finished: bool = False
    """An earlier start had come to the end; nothing was computed."""


def fit(
    examples: Sequence[Example],
    held_out: Example,
    description: RunDescription,
    folder: pathlib.Path,
    *,
    length: Length,
    initial: tuple[Weights, Weights] | None = None,
    volumes: Literal["auto", "device", "stream"] = "auto",
    save_every_seconds: float = 120,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains on `examples`, validates on `held_out`, leaves everything in `folder`; continues what is there.

    `initial` replaces the freshly drawn parameters and statistics of a new run. `volumes` says whether tomograms are
    kept on the device or windows are cut from the files; the samples are the same.

    Raises:
        InputError: the folder holds another run, or the data cannot be used.
        TrainingStopped: a signal asked for it, the loss is not a number, or the end cannot be written.
    """
    began = time.monotonic()
    config, types = description.config, description.types
    say = say if hosts.is_first() else lambda _: None
    resumed = describe(folder, description) if hosts.is_first() else True
    hosts.meet("description")
    files = tuple(folder / f for f in _FILES)
    finished = read_result(folder) if resumed and all(f.exists() for f in files) else None
    if finished is not None:
        return Outcome(result=finished, files=files, was_finished=True)
    resident = volumes == "device" or (volumes == "auto" and _fit_on_device(examples))
    collection = collect(
        [e.volume for e in examples],
        [e.picks for e in examples],
        config.intensity,
        config.model.patch_zyx,
        rounded=config.target.rounded,
        load=resident,
    )
    grid = epoch_grid([e.volume.grid.shape_zyx for e in examples], config.model.patch_zyx, config.crop)
    epoch_steps = max(len(grid) // config.optim.batch, 1)
    network, params, stats = build(
        config.model,
        seed=config.seed,
        dtype=_DTYPES[config.precision],
        batch_axis=AXIS if config.sync_batch_norm else None,
        rematerialize=config.rematerialize,
    )
    if initial is not None:
        params, stats = initial
    total = length.steps or max(round(config.optim.epochs * epoch_steps), 1)
    state = initial_state(
        params, stats, total_steps=total, config=config.optim, half_precision=config.precision == "float16"
    )
    with Checkpoints(folder) as checkpoints, stop_signals() as stop:
        restored = checkpoints.restore(state) if resumed else None
        if restored is not None:
            state = restored
            say(f"continuing {folder} after step {int(state.step)} of {int(state.total_steps)}")
        elif resumed:
            say(f"{folder} has no checkpoint yet: starting again")
        first = int(state.step)
        say(
            f"{len(examples)} runs {'on the device' if resident else 'read as needed'}, {len(grid)} windows an epoch, "
            f"batch {config.optim.batch}: {epoch_steps} steps an epoch, "
            + (f"as many as {length.minutes:g} minutes allow" if length.minutes else f"{int(state.total_steps)} steps")
            + f"; {sum(v.size for v in params.values()) / 1e6:.1f} M parameters on "
            + f"{jax.device_count()} {jax.default_backend()} device{'s' if jax.device_count() > 1 else ''}"
        )
        record = Record(folder, types, first, writes=hosts.is_first())
        trainer = Trainer(
            description=description,
            folder=folder,
            network=network,
            held_out=held_out,
            page=HeldOutPage(folder=folder, description=description, volume=held_out.volume, truth=held_out.picks),
            record=record,
            keeper=Keeper(folder, record, checkpoints, say),
            say=say,
        )
        validation, steps = trainer.run(
            _stepper(examples, collection, grid, description, over_devices(network, config, sigmas_voxel(
                types, config.target, description.spacing_angstrom)), first),
            replicate(state),
            Timing(
                first=first,
                total=int(state.total_steps),
                validate_every=max(round(config.validate_every_epochs * epoch_steps), 1),
                save_every_seconds=save_every_seconds,
                deadline=None if length.minutes is None else began + 60 * length.minutes,
            ),
            stop,
        )  # fmt: skip
    hosts.meet("end")
    result = Result.of(steps, validation)
    if hosts.is_first():
        try:
            record.draw(held_out.volume, held_out.picks, validation)
            write_result(folder, result)
        except OutputError as error:
            raise TrainingStopped(f"the training is done and saved, but {error}; the same command ends it") from error
    return Outcome(result=result, files=files)


def _stepper(
    examples: Sequence[Example],
    collection: Collection,
    grid: np.ndarray,
    description: RunDescription,
    step: Callable[..., tuple[TrainState, Metrics]],
    first: int,
) -> Callable[[TrainState, int], tuple[TrainState, Metrics]]:
    """Step n on this host's devices, with its share of the batch's rows."""
    config = description.config
    share = config.optim.batch // jax.process_count()
    mine = np.arange(jax.process_index() * share, (jax.process_index() + 1) * share)
    local = jax.local_device_count()
    replicated = replicate(collection)

    def rows(n: int) -> np.ndarray:
        return rows_of_step(grid, seed=config.seed, step=n, batch=config.optim.batch)[mine]

    windows = None
    if collection.volumes is None:
        windows = streamed_windows(
            [e.volume for e in examples],
            collection,
            rows,
            mine,
            first_step=first,
            key=jax.random.key(config.seed),
            patch_zyx=config.model.patch_zyx,
            crop=config.crop,
            intensity=config.intensity,
        )

    def run(state: TrainState, n: int) -> tuple[TrainState, Metrics]:
        cut = None if windows is None else next(windows).reshape(local, -1, *config.model.patch_zyx)
        return step(state, replicated, rows(n).reshape(local, -1, 4), cut)

    return run


def _fit_on_device(examples: Sequence[Example]) -> bool:
    size = 4 * len(examples) * math.prod(np.max([e.volume.grid.shape_zyx for e in examples], axis=0).tolist())
    statistics = jax.local_devices()[0].memory_stats()
    limit = _RESIDENT_SHARE_GPU * statistics["bytes_limit"] if statistics else _RESIDENT_BYTES_CPU
    return size * (1 if statistics else jax.local_device_count()) <= limit
