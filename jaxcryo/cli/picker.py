"""Picks of one run after the other, in whatever process, on whatever machine: what `infer` does with each."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import warnings

from jaxcryo.cli.pages import PageNotes, RunPage
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.picking.peaks import OnSlab
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.preprocess import fit_volume
from jaxcryo.picking.surroundings import with_surroundings
from jaxcryo.picks.candidates import floor_of, write_candidates
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.picks.formats import above_thresholds
from jaxcryo.picks.origin import Origin, write_origin
from jaxcryo.project.mask import open_mask
from jaxcryo.report import draw_picks
from jaxcryo.runtime.backends import choose_precision, open_model
from jaxcryo.runtime.manifest import ModelEntry, read_manifest
from jaxcryo.runtime.opened import IN_PLANE_FLIPS, NO_FLIPS
from jaxcryo.runtime.precision import PrecisionChoice
from jaxcryo.runtime.workers import Listener, Work
from jaxcryo.tomogram.heatmaps import heatmap_writer
from jaxcryo.tomogram.volumes import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is the same for all runs."""

    folder: pathlib.Path
    """Of the models."""
    entries: tuple[ModelEntry, ...]
    backend: str
    precision: PrecisionChoice
    """What was asked for; what it came to is in the entries."""
    types: tuple[ParticleType, ...]
    out: pathlib.Path
    reading: Reading
    mask: str | None = None
    """A volume for all runs or a folder with one for each: there are no picks outside of it."""
    tta: bool = False
    """Average over flips in the plane."""
    save_heatmaps: bool = False
    """As OME-Zarr, in heatmaps/."""
    page: PageNotes | None = None
    """What the runs' pages say of the inference; None leaves the pages out."""


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


def open_picker(job: Job) -> Work[RunTask, PickedRun]:
    """Opens the models; the function writes the picks of a run, whole, and its picture.

    Raises:
        InputError: a model cannot be used. The function raises it for a volume that cannot, and `ModelError`.
    """
    flips = IN_PLANE_FLIPS if job.tta else NO_FLIPS
    models = [dataclasses.replace(open_model(job.folder, entry, job.backend), flips=flips) for entry in job.entries]

    def pick(task: RunTask, listener: Listener) -> PickedRun:
        began = time.monotonic()
        origin = Origin.of(task.run.volume_path)  # as it is before it is read
        volume = job.reading.open(task.run.volume_path, task.run.name)
        mask = None if job.mask is None else open_mask(job.mask, volume.name, volume.grid)
        volume = fit_volume(volume, job.entries, note=listener.note)
        floor = floor_of(job.types)
        page = None if job.page is None else RunPage(job.page, volume, job.types, floor=floor)
        watchers: list[OnSlab] = [] if page is None else [page.on_slab]
        with contextlib.ExitStack() as stack:
            if job.save_heatmaps:
                place = job.out / "heatmaps" / f"{volume.name}.zarr"
                write = stack.enter_context(heatmap_writer(place, volume.grid, job.types))
                watchers.append(lambda slab: write(slab.z_start, slab.heatmap))
            candidates = find_picks(
                volume,
                models,
                job.types,
                config=job.entries[0].inference,
                floor=floor,
                on_windows=listener.advance,
                on_slab=lambda slab: [watch(slab) for watch in watchers],
                mask=mask,
                note=listener.note,
            )
        candidates = with_surroundings(candidates, volume.grid, mask)
        seconds = time.monotonic() - began
        picks = above_thresholds(candidates, {t.name: t.threshold for t in job.types})
        picture = job.out / "pictures" / f"{task.run.name}.png"
        draw_picks(picture, volume, picks, task.truth)
        write_candidates(candidates, job.out)
        if page is not None:
            page.write(job.out, candidates, task.truth, seconds=seconds, tomogram=task.run.volume_path)
        # The picks come last and whole: a run counts as done when they are there.
        write_origin(job.out / "ExperimentRuns" / task.run.name, origin)
        write_copick_picks(picks, job.out)
        return PickedRun(count=len(picks), seconds=time.monotonic() - began, picture=picture)

    return pick


def open_picker_elsewhere(job: Job) -> Work[RunTask, PickedRun]:
    """As `open_picker`, in another process or on another machine, once that has the same models and precision.

    Raises:
        InputError: as `open_picker`; or models or precision are others here.
    """
    here = {entry.name: entry for entry in read_manifest(job.folder)}
    for entry in job.entries:
        found = here.get(entry.name)
        if found is None or found.files != entry.files:
            raise InputError(f"{job.folder}: {entry.name} is not the same model there: copy the folder again")
    chosen, _ = choose_precision(job.precision, job.backend, [here[entry.name] for entry in job.entries])
    for entry, own in zip(job.entries, chosen, strict=True):
        if own.precision != entry.precision:
            raise InputError(
                f"computes {entry.name} in {own.precision}; expected {entry.precision}: choose one with --precision"
            )
    pick = open_picker(job)

    def pick_and_tell(task: RunTask, listener: Listener) -> PickedRun:
        def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
            if category is UserWarning:  # the project's own, which are for people
                listener.note(str(message))

        with warnings.catch_warnings():
            warnings.showwarning = show
            return pick(task, listener)

    return pick_and_tell
