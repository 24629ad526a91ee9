"""What `infer` does with each run, in any process, on any machine."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import warnings
from typing import Any

from jaxcryo.cli.pages import PageNotes, write_run_page
from jaxcryo.cli.parts import Part, Parts
from jaxcryo.domain import ParticleType, Picks, Run, Volume
from jaxcryo.errors import InputError
from jaxcryo.page import Overlay
from jaxcryo.picking.peaks import OnSlab, collect_peaks
from jaxcryo.picking.pipeline import peaks_of_slices, picks_of_peaks
from jaxcryo.picking.preprocess import fit_volume
from jaxcryo.picking.ranges import z_ranges
from jaxcryo.picking.surroundings import with_surroundings
from jaxcryo.picks.candidates import floor_of, write_candidates
from jaxcryo.picks.copick_json import write_copick_picks
from jaxcryo.picks.folder import Settings
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
from jaxcryo.tomogram.statistics import Surveyed, surveyed, with_survey
from jaxcryo.tomogram.volumes import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What is the same for all runs."""

    folder: pathlib.Path
    """The folder of the models."""
    entries: tuple[ModelEntry, ...]
    backend: str
    precision: PrecisionChoice
    """As requested; the entries have what was chosen."""
    types: tuple[ParticleType, ...]
    out: pathlib.Path
    reading: Reading
    settings: Settings
    save_heatmaps: bool = False
    """Write them as OME-Zarr, in heatmaps/."""
    page: PageNotes | None = None
    """What the runs' pages say of the inference; None leaves the pages out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunTask:
    """One run to do."""

    run: Run
    label: str
    truth: Picks | None
    ranges: int = 1
    """How many ranges of slices it is shared out in; with more than one these are done before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurveyTask(RunTask):
    """To go through the tomogram of a run that is shared out, which all its ranges depend on."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RangeTask(RunTask):
    """One range of a run that is shared out."""

    index: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PickedRun:
    """What was written for a run."""

    count: int
    seconds: float
    """Of work, by however many workers."""
    picture: pathlib.Path


def open_picker(job: Job) -> Work[RunTask, PickedRun | None]:
    """Opens the models; the function writes the picks of a run, whole, and its picture, or does a part of that.

    Raises:
        InputError: a model cannot be used. The function raises it for a volume that cannot, and `ModelError`.
    """
    return _Picker(job)


class _Picker:
    """Does one task after the other with models that are open."""

    def __init__(self, job: Job) -> None:
        flips = IN_PLANE_FLIPS if job.settings.tta else NO_FLIPS
        self.job, self.floor = job, floor_of(job.types)
        self.models = [
            dataclasses.replace(open_model(job.folder, entry, job.backend), flips=flips) for entry in job.entries
        ]

    def __call__(self, task: RunTask, listener: Listener) -> PickedRun | None:
        origin = Origin.of(task.run.volume_path)  # as it is before it is read
        if task.ranges == 1:
            return self._pick(task, origin, listener, None)
        job = self.job
        parts = Parts.of(job.out, task.run.name, job.settings, origin, count=task.ranges, pages=job.page is not None)
        if isinstance(task, SurveyTask):
            self._survey(task, listener, parts)
        elif isinstance(task, RangeTask):
            self._search_range(task, listener, parts)
        else:
            return self._pick(task, origin, listener, parts)
        return None

    def _survey(self, task: SurveyTask, listener: Listener, parts: Parts) -> None:
        if parts.has_surveys():
            listener.advance(1, 1)
            return
        surveys = []

        def survey(volume: Volume, **options: Any) -> Surveyed:
            found = surveyed(volume, **options)
            surveys.append(found.survey)
            return found

        volume = self.job.reading.open(task.run.volume_path, task.run.name)
        fit_volume(volume, self.job.entries, survey=survey, note=listener.note)
        parts.write_surveys(surveys)

    def _search_range(self, task: RangeTask, listener: Listener, parts: Parts) -> None:
        volume, mask = self._open(task, listener, parts)
        slices = self._ranges(volume, task.ranges)[task.index]
        if parts.has(slices):
            listener.advance(1, 1)
        else:
            parts.write(slices, self._search(volume, mask, slices, listener))

    def _pick(self, task: RunTask, origin: Origin, listener: Listener, parts: Parts | None) -> PickedRun:
        began = time.monotonic()
        job = self.job
        volume, mask = self._open(task, listener, parts)
        if parts is None:
            found = [self._search(volume, mask, (0, volume.grid.shape_zyx[0]), listener)]
        else:
            found = [parts.read(slices) for slices in self._ranges(volume, task.ranges)]
            began -= sum(part.seconds for part in found)
        peaks = collect_peaks([part.peaks for part in found])
        config = job.entries[0].inference
        candidates = picks_of_peaks(peaks, volume.name, volume.grid, job.types, config, mask=mask)
        candidates = with_surroundings(candidates, volume.grid, mask)
        seconds = time.monotonic() - began
        picks = above_thresholds(candidates, {t.name: t.threshold for t in job.types})
        picture = job.out / "pictures" / f"{task.run.name}.png"
        draw_picks(picture, volume, picks, task.truth)
        write_candidates(candidates, job.out)
        if job.page is not None:
            overlay = Overlay(
                volume.grid.shape_zyx,
                len(job.types),
                floor=self.floor,
                pngs=[png for part in found for png in part.pngs],
            )
            write_run_page(
                job.out,
                job.page,
                volume,
                job.types,
                overlay.images(),
                candidates,
                task.truth,
                floor=self.floor,
                seconds=seconds,
                tomogram=task.run.volume_path,
            )
        # The picks come last and whole: a run counts as done when they are there.
        write_origin(job.out / "ExperimentRuns" / task.run.name, origin)
        write_copick_picks(picks, job.out)
        return PickedRun(count=len(picks), seconds=time.monotonic() - began, picture=picture)

    def _open(self, task: RunTask, listener: Listener, parts: Parts | None) -> tuple[Volume, Volume | None]:
        """The volume as the models want it, and the mask; of a run that is shared out all was said by the survey."""
        job = self.job
        with warnings.catch_warnings():
            if parts is not None:
                warnings.simplefilter("ignore", UserWarning)
            volume = job.reading.open(task.run.volume_path, task.run.name)
            mask = None if job.settings.mask is None else open_mask(job.settings.mask, volume.name, volume.grid)
        if parts is None:
            return fit_volume(volume, job.entries, note=listener.note), mask
        surveys = iter(parts.surveys())
        return fit_volume(volume, job.entries, survey=lambda v, **_: with_survey(v, next(surveys))), mask

    def _ranges(self, volume: Volume, count: int) -> tuple[tuple[int, int], ...]:
        shape = volume.grid.shape_zyx
        return z_ranges(shape[0], count, multiple=Overlay(shape, len(self.job.types), floor=self.floor).bin_zyx[0])

    def _search(self, volume: Volume, mask: Volume | None, slices: tuple[int, int], listener: Listener) -> Part:
        """What these slices hold."""
        began = time.monotonic()
        job = self.job
        watchers: list[OnSlab] = []
        overlay = Overlay(volume.grid.shape_zyx, len(job.types), floor=self.floor)
        if job.page is not None:
            watchers.append(overlay.add)
        with contextlib.ExitStack() as stack:
            if job.save_heatmaps:
                place = job.out / "heatmaps" / f"{volume.name}.zarr"
                write = stack.enter_context(heatmap_writer(place, volume.grid, job.types))
                watchers.append(lambda slab: write(slab.z_start, slab.heatmap))
            peaks = peaks_of_slices(
                volume,
                self.models,
                job.types,
                slices,
                config=job.entries[0].inference,
                floor=self.floor,
                on_windows=listener.advance,
                on_slab=lambda slab: [watch(slab) for watch in watchers],
                mask=mask,
                note=listener.note,
            )
        return Part(peaks=peaks, pngs=overlay.pngs, seconds=time.monotonic() - began)


def open_picker_elsewhere(job: Job) -> Work[RunTask, PickedRun | None]:
    """As `open_picker`, in another process or on another machine, after checking that its models and precision match.

    Raises:
        InputError: as `open_picker`; or models or precision differ here.
    """
    here = {entry.name: entry for entry in read_manifest(job.folder)}
    for entry in job.entries:
        found = here.get(entry.name)
        if found is None or found.files != entry.files:
            raise InputError(f"{job.folder}: {entry.name} is another model there; copy the folder again")
    chosen, _ = choose_precision(job.precision, job.backend, [here[entry.name] for entry in job.entries])
    for entry, own in zip(job.entries, chosen, strict=True):
        if own.precision != entry.precision:
            raise InputError(
                f"computes {entry.name} in {own.precision}; expected {entry.precision}: choose one with --precision"
            )
    pick = open_picker(job)

    def pick_and_tell(task: RunTask, listener: Listener) -> PickedRun | None:
        def show(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
            if category is UserWarning:  # the project's own, which are for people
                listener.note(str(message))

        with warnings.catch_warnings():
            warnings.showwarning = show
            return pick(task, listener)

    return pick_and_tell
