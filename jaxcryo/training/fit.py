"""A training from its first step, or from where it was interrupted, to the end."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.config import TrainConfig
from jaxcryo.data.samples import Batch
from jaxcryo.data.targets import sigmas_voxel
from jaxcryo.errors import InputError, OutputError
from jaxcryo.models import Network, Weights, build
from jaxcryo.picking.windows import plan_windows
from jaxcryo.training import distributed
from jaxcryo.training.checkpoint import Checkpoints
from jaxcryo.training.device import (
    Device,
    StepMemory,
    nearest_parts,
    parts_that_fit,
    possible_parts,
    step_said,
    with_parts,
    with_precision,
)
from jaxcryo.training.held_out_page import HeldOutPage
from jaxcryo.training.loop import Timing, Trainer, TrainingStopped, stop_signals
from jaxcryo.training.record import Record
from jaxcryo.training.run_folder import (
    Result,
    RunDescription,
    RunFolder,
    config_of,
    describe,
    read_result,
    write_result,
)
from jaxcryo.training.run_writer import RunWriter
from jaxcryo.training.source import Example, SampleSource
from jaxcryo.training.state import TrainState, initial_state
from jaxcryo.training.step import AXIS, Step, kept_bytes, over_devices, replicate

__all__ = ["Example", "Length", "Outcome", "Start", "TrainingStopped", "fit"]

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """How long to train: the config's epochs unless steps or minutes are given."""

    steps: int | None = None
    minutes: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a new training starts from instead of random weights."""

    params: Weights
    stats: Weights
    about: str = ""
    """Printed when the training really starts from it."""
    sha256: str | None = None
    """The SHA-256 of the file that it was read from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a training."""

    result: Result
    files: tuple[pathlib.Path, ...]
    was_finished: bool = False
    """The training had already finished; nothing was computed."""


def fit(
    source: SampleSource,
    held_out: Example,
    description: RunDescription,
    path: pathlib.Path,
    *,
    length: Length,
    start: Start | None = None,
    save_every_seconds: float = 120,
    device: Device | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Trains on the batches of `source`, validates on `held_out`, writes all to a folder; continues a run in it.

    If the recipe leaves precision or parts of a batch open, they are those that the run in the folder began with, or
    else what suits the device (None: the one at hand). The source is closed at the end. If the training has already
    finished, no batch is asked of it.

    Raises:
        InputError: the folder holds another run, or the data cannot be used.
        TrainingStopped: a signal asked for it, the loss is non-finite, or the end cannot be written.
    """
    began = time.monotonic()
    config, types, folder = description.config, description.types, RunFolder(path)
    say = say if distributed.is_first() else lambda _: None
    try:  # what a validation would refuse after an epoch is refused now
        plan_windows(held_out.volume.grid.shape_zyx, config.model.patch_zyx, config.inference.stride_zyx)
    except InputError as error:
        raise InputError(f"{held_out.volume.name}, the held-out run: {error}") from error
    device = _like_all_processes(device or Device.at_hand())
    before = config_of(folder)
    config, in_precision = with_precision(config, before, device)
    given = config.optim.accumulate is not None
    if before is not None:
        config = with_parts(config, config.optim.accumulate or before.optim.parts)
    description = dataclasses.replace(description, config=config)
    if before is not None and not given:
        config = with_parts(config, nearest_parts(config, jax.device_count()))
    distributed.check_same("data and options", description.to_json())
    if before is not None:
        _enter(folder, description)
        finished = read_result(folder) if all(f.exists() for f in folder.listed) else None
        if finished is not None:
            return Outcome(result=finished, files=folder.listed, was_finished=True)
    network, params, stats = build(
        config.model,
        seed=config.seed,
        dtype=_DTYPES[config.precision or "float32"],
        batch_axis=AXIS if config.sync_batch_norm else None,
        rematerialize=config.rematerialize,
    )
    if start is not None:
        params, stats = start.params, start.stats
    sigma_voxel = sigmas_voxel(types, config.target, description.spacing_angstrom)
    total = length.steps or max(round(config.optim.epochs * source.epoch_steps), 1)
    state = initial_state(
        params, stats, total_steps=total, config=config.optim, half_precision=config.precision == "float16"
    )
    with contextlib.closing(source), Checkpoints(folder) as checkpoints, stop_signals() as stop:
        restored = checkpoints.restore(state, say) if before is not None else None
        if restored is not None:
            state = restored
            say(f"continuing {folder} after step {int(state.step)} of {int(state.total_steps)}")
        else:
            if before is not None:
                say(f"{folder} has no checkpoint yet: starting from step 0")
            if start is not None and start.about:
                say(start.about)
        first = int(state.step)
        say(
            f"{source.about}, batch {config.optim.batch}: {source.epoch_steps} steps an epoch, "
            + (f"as many as {length.minutes:g} minutes allow" if length.minutes else f"{int(state.total_steps)} steps")
            + f"; {sum(v.size for v in params.values()) / 1e6:.1f} M parameters on "
            + f"{jax.device_count()} {jax.default_backend()} device{'s' if jax.device_count() > 1 else ''}"
        )
        on_devices, batch = replicate(state), None
        if first < int(state.total_steps):
            batch = source.batch(first)
            step, parts, memory = _compiled(network, config, on_devices, batch, sigma_voxel, device)
            if before is None:
                description = dataclasses.replace(description, config=with_parts(config, parts))
                _enter(folder, description)
            elif parts != before.optim.parts:
                say(
                    f"where this training began, a batch was split into {before.optim.parts} parts; over "
                    f"{jax.device_count()} devices it is split into {parts}"
                )
            told = with_parts(config, parts)
            say(step_said(in_precision, memory, told, device, jax.device_count(), is_new=before is None, given=given))
        else:  # all steps are done, and the end is missing
            step = over_devices(network, config, sigma_voxel)
        record = Record(folder, types, first, writes=distributed.is_first())
        trainer = Trainer(
            description=description,
            folder=folder,
            network=network,
            source=source,
            held_out=held_out,
            page=HeldOutPage(folder=folder, description=description, volume=held_out.volume, truth=held_out.picks),
            record=record,
            writer=RunWriter(folder, record, checkpoints, say),
            first_batch=batch,
            say=say,
        )
        del batch
        timing = Timing(
            first=first,
            total=int(state.total_steps),
            validate_every=max(round(config.validate_every_epochs * source.epoch_steps), 1),
            save_every_seconds=save_every_seconds,
            deadline=None if length.minutes is None else began + 60 * length.minutes,
        )
        validation, steps = trainer.run(step, on_devices, timing, stop)
    distributed.meet("end")
    result = Result.of(steps, validation)
    if distributed.is_first():
        try:
            record.draw(held_out.volume, held_out.picks, validation)
            write_result(folder, result)
        except OutputError as error:
            raise TrainingStopped(
                f"the training is done and saved, but {error}; rerun the same command to finish it"
            ) from error
    return Outcome(result=result, files=folder.listed)


def _enter(folder: RunFolder, description: RunDescription) -> None:
    """Writes what a new run trains, or sees that the folder's run is this one."""
    if distributed.is_first():
        describe(folder, description)
    distributed.meet("description")


def _like_all_processes(device: Device) -> Device:
    """With the memory that every process's device has (None where one does not say), so that all decide alike."""
    unknown, least = distributed.agree(int(device.memory_bytes is None), -((device.memory_bytes or 0) >> 20))
    return dataclasses.replace(device, memory_bytes=None if unknown else -least << 20)


def _compiled(
    network: Network,
    config: TrainConfig,
    state: TrainState,
    batch: Batch,
    sigma_voxel: Float[NDArray[np.float32], " c"],
    device: Device,
) -> tuple[Step, int, StepMemory]:
    """The step, into how many parts it splits a batch, and what it takes of a device's memory."""
    steps: dict[int, jax.stages.Wrapped] = {}

    def measure(parts: int) -> StepMemory:
        step = over_devices(network, with_parts(config, parts), sigma_voxel)
        steps.clear()  # one that was too large has its place in memory too
        steps[parts] = step
        return StepMemory.of(step, state, batch)

    possible = possible_parts(config, jax.device_count())
    if config.optim.accumulate is None and device.room_bytes is not None and possible:
        lasting = sum(a.nbytes for a in jax.tree.leaves((state, batch))) // jax.local_device_count()
        kept = kept_bytes(network, config, state)
        parts, memory = parts_that_fit(
            possible, measure, kept_bytes=kept, lasting_bytes=lasting, room_bytes=device.room_bytes
        )
    else:
        parts = config.optim.parts
        memory = measure(parts)
    return steps[parts], parts, memory
