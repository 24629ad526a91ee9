"""Picks of one run after the other, in whatever process: what `infer.py` does with each."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from jaxcryo.domain import ParticleType, Picks
from jaxcryo.inference.backends import Runner, open_engine
from jaxcryo.inference.fit import fit_volume
from jaxcryo.inference.manifest import EngineEntry
from jaxcryo.inference.pipeline import find_picks
from jaxcryo.inference.workers import Advance
from jaxcryo.io.dataset import Run
from jaxcryo.io.mask import open_mask
from jaxcryo.io.picks import write_copick_picks
from jaxcryo.io.volumes import Reading
from jaxcryo.report import draw_picks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is the same for all runs."""

    folder: pathlib.Path
    """Of the engines."""
    entries: tuple[EngineEntry, ...]
    backend: Runner
    types: tuple[ParticleType, ...]
    out: pathlib.Path
    reading: Reading
    mask: str | None = None
    """A volume for all runs or a folder with one for each: there are no picks outside of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunTask:
    """One run to do."""

    run: Run
    label: str
    truth: Picks | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickedRun:
    """What was written for a run."""

    count: int
    seconds: float
    picture: pathlib.Path


def open_picker(job: Job) -> Callable[[RunTask, Advance], PickedRun]:
    """Opens the engines; the function writes the picks of a run, whole, and its picture.

    Raises:
        InputError: an engine cannot be used. The function raises it for a volume that cannot, and `EngineError`.
    """
    engines = [open_engine(job.folder, entry, job.backend) for entry in job.entries]

    def pick(task: RunTask, advance: Advance) -> PickedRun:
        began = time.monotonic()
        volume = job.reading.open(task.run.volume_path, task.run.name)
        mask = None if job.mask is None else open_mask(job.mask, volume.name, volume.grid)
        volume = fit_volume(volume, job.entries, note=_say)
        picks = find_picks(
            volume, engines, job.types, config=job.entries[0].inference, on_windows=advance, mask=mask, note=_say
        )
        picture = job.out / "pictures" / f"{task.run.name}.png"
        draw_picks(picture, volume, picks, task.truth)
        # The picks come last and whole: a run counts as done when they are there.
        write_copick_picks(picks, job.out)
        return PickedRun(count=len(picks), seconds=time.monotonic() - began, picture=picture)

    return pick


def _say(sentence: str) -> None:
    tqdm.write(f"note: {sentence}", file=sys.stderr)
