"""The plan of an inference: all that can be checked, and refused, before a voxel is read."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from jaxcryo.calibration import Calibration, mean_calibration
from jaxcryo.calling import command
from jaxcryo.cli.exports import export_geometries, export_places
from jaxcryo.cli.geometry import say
from jaxcryo.cli.infer import InferOptions, ModelOptions, PickingOptions
from jaxcryo.cli.inputs import Source, check_truth, find_source, known_picks, reading_of
from jaxcryo.cli.napari_view import View, napari_view
from jaxcryo.cli.pages import page_notes
from jaxcryo.cli.picker import Job, RunTask
from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.phantom import DrawConfig, write_dataset
from jaxcryo.picking.effort import Effort, stride_of
from jaxcryo.picking.preprocess import models_spacing
from jaxcryo.picks.candidates import floor_of
from jaxcryo.picks.folder import ModelUsed, PicksFolder, Settings
from jaxcryo.picks.formats import Geometries
from jaxcryo.picks.thresholds import read_thresholds, with_thresholds
from jaxcryo.project.copick import check_no_own_files
from jaxcryo.project.mask import check_mask
from jaxcryo.runtime.backends import choose_backend, choose_precision, ensemble_types
from jaxcryo.runtime.cuda import jax_gpus, share_memory
from jaxcryo.runtime.hub import models_folder
from jaxcryo.runtime.manifest import ModelEntry, read_manifest
from jaxcryo.runtime.workers import Place, plan_places
from jaxcryo.serialize import types_to_json
from jaxcryo.stores.address import Address
from jaxcryo.tomogram.volumes import Reading

T = TypeVar("T")

DEMO_MODELS = pathlib.Path(__file__).parents[1] / "demo"
DEMO_SEED = 20260
DEMO_SHAPE_ZYX = (128, 400, 400)
DEMO_HARSHNESS = 1.3
"""How much weaker the signal of the demo's phantom is than in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One of several parts of a list that together are all of it, none twice."""

    index: int
    """From 1."""
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that `3/20` means.

        Raises:
            InputError: the text is not one.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        index, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= index <= count:
            raise InputError(f"--shard: {text!r} is not a valid shard; expected I/N with I from 1 to N, e.g. 3/20")
        return cls(index=index, count=count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, items: Sequence[T]) -> list[T]:
        """Every `count`-th item: neighbors in the list, which are often alike in size, are spread over the shards."""
        return list(items[self.index - 1 :: self.count])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """An inference."""

    source: Source
    runs: list[Run]
    shard: Shard | None
    tasks: list[RunTask]
    """The runs that are still to do."""
    truth: dict[str, Picks]
    job: Job
    settings: Settings
    places: tuple[Place, ...]
    """Where workers of this machine are started; none where there is a scheduler."""
    geometry: Geometries
    view: View | None
    described: str
    """The models and what runs them, for people."""
    calibration: Calibration | None
    given: Mapping[str, float]
    """Thresholds that were asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """What runs the models, and in which precision."""

    backend: str
    reason: str
    entries: tuple[ModelEntry, ...]
    """Each with the precision it is run in."""
    precision: str
    """Which, and why, for people."""


ChooseHow = Callable[[ModelOptions, pathlib.Path, tuple[ModelEntry, ...]], How]


def choose_how(options: ModelOptions, folder: pathlib.Path, entries: tuple[ModelEntry, ...]) -> How:
    """What `auto` means on this machine; raises InputError where it cannot do what was asked."""
    backend, reason = choose_backend(options.backend, folder, entries)
    chosen, precision = choose_precision(options.precision, backend, entries)
    return How(backend=backend, reason=reason, entries=chosen, precision=precision)


def with_demo_data(options: InferOptions) -> InferOptions:
    """Makes the demo's tomogram; the options to pick it."""
    out = options.out or pathlib.Path("demo")
    data = out / "data"
    config = DrawConfig(shape_zyx=DEMO_SHAPE_ZYX, harshness=DEMO_HARSHNESS, center_share=1.0)
    size = "×".join(map(str, config.shape_zyx))
    print(f"1. Making a phantom tomogram of {size} voxels that no training has seen, in {data}")
    if out.exists() and PicksFolder(path=out).settings() is None and any(out.iterdir()):
        raise InputError(f"{out} already exists and is not an earlier demo; choose another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    write_dataset(data, config, seed=DEMO_SEED, runs=0, test_runs=1, progress=True)
    print("2. Finding the particles")
    engines = options.engines or str(DEMO_MODELS)
    return dataclasses.replace(options, data=str(data), copick=None, out=out, engines=engines, runs=())


def planned(options: InferOptions, *, choose: ChooseHow) -> Plan:
    """Reads and checks everything but the tomograms; nothing has been written where it raises InputError."""
    out = options.out or pathlib.Path("picks")
    if options.engines is None:
        raise InputError(
            f"no models were given; pass --engines DIR with a folder that '{command('convert onnx')}' wrote, or --demo"
        )
    folder = models_folder(options.engines)
    entries = tuple(_as_asked(e, options.effort, options.picking) for e in read_manifest(folder))
    check_truth(options.truth, options.copick, options.portal, options.data)
    if options.running.split_z < 1:
        raise InputError(f"--split-z is {options.running.split_z}; expected the number of ranges, from 1 up")
    if options.running.split_z > 1 and options.output.save_heatmaps:
        raise InputError("--split-z and --save-heatmaps were both given; heatmaps are written in one piece: choose one")
    near_angstrom = models_spacing(entries)
    source = find_source(
        options.data,
        options.copick,
        options.input,
        portal=options.portal,
        names=options.runs,
        near_angstrom=near_angstrom,
    )
    shard = None if options.running.shard is None else Shard.parse(options.running.shard)
    runs = source.runs if shard is None else shard.of(source.runs)
    types = ensemble_types(entries)
    given = {} if options.picking.thresholds is None else read_thresholds(options.picking.thresholds)
    types = with_thresholds(types, given)
    view = napari_view() if options.output.view == "napari" else None
    running = options.running
    if running.scheduler is not None:  # a worker may be started in another folder
        folder, out = folder.absolute(), out.absolute()
        runs = [_absolute(run) for run in runs]
    how = choose(options.model, folder, entries)
    backend, entries = how.backend, how.entries
    reading = reading_of(options.input)
    if options.mask is not None:
        check_mask(options.mask)
    if reading.cache is None and any(isinstance(r.volume_path, Address) for r in runs):
        say(
            "every tomogram is fetched at least twice, for statistics and for picks; "
            "--cache DIR keeps a copy on this machine"
        )
    settings = _settings(entries, types, reading, options)
    geometry = export_geometries(options, out, runs)
    done: set[str] = set()
    if not options.force:
        PicksFolder(path=out).check_ours([out / "submission.csv", *export_places(options, out).values()])
        done = PicksFolder(path=out).finished(settings, runs, note=say)
    if source.project is not None and not options.force:
        check_no_own_files(source.project, [r.name for r in runs if r.name not in done])
    if backend == "tensorrt":
        share_memory()
    truth = known_picks(source, types, options.truth)
    calibration = mean_calibration([e.calibration for e in entries])
    shared = running.split_z * (len(runs) - len(done))
    if running.workers is not None and calibration is not None and shard is None:
        shared = max(shared, len(runs))  # thresholds over all runs change those that were done before
    gpus = () if backend == "openvino" or running.scheduler is not None else jax_gpus()
    page = page_notes(
        entries, backend=backend, reason=how.reason, settings=settings, engines=options.engines, out=str(out)
    )
    return Plan(
        source=source,
        runs=runs,
        shard=shard,
        tasks=[
            RunTask(
                run=run,
                label=f"[{number}/{len(runs)}] {run.name}",
                truth=truth.get(run.name),
                ranges=running.split_z,
            )
            for number, run in enumerate(runs, 1)
            if run.name not in done
        ],
        truth=truth,
        job=Job(
            folder=folder,
            entries=entries,
            backend=backend,
            precision=options.model.precision,
            types=types,
            out=out,
            reading=reading,
            settings=settings,
            save_heatmaps=options.output.save_heatmaps,
            page=page if options.output.report else None,
        ),
        settings=settings,
        places=() if running.scheduler else plan_places(running.workers, gpus, shared),
        geometry=geometry,
        view=view,
        described=f"{len(entries)} model{'s averaged' if len(entries) > 1 else ''} "
        f"({', '.join(e.name for e in entries)}) by {backend} ({how.reason}) in {how.precision}",
        calibration=calibration,
        given=given,
    )


def _absolute(run: Run) -> Run:
    """A file by its whole path, an address as it is."""
    path = run.volume_path
    return run if isinstance(path, Address) else dataclasses.replace(run, volume_path=path.absolute())


def _settings(
    entries: Sequence[ModelEntry], types: Sequence[ParticleType], reading: Reading, options: InferOptions
) -> Settings:
    inference = entries[0].inference
    return Settings(
        engines=tuple(
            ModelUsed(
                name=e.name,
                onnx_sha256=e.running_sha256,
                stride_zyx=e.stride_zyx,
                precision=e.precision,
                source=e.source,
            )
            for e in entries
        ),
        thresholds={t.name: t.threshold for t in types},
        floor=floor_of(types),
        particles=tuple({k: v for k, v in t.items() if k != "threshold"} for t in types_to_json(types)),
        nms_voxel=inference.nms_voxel,
        merge_radius=inference.merge_radius,
        refine=inference.refine,
        tta=options.picking.tta,
        voxel_spacing_angstrom=reading.spacing_angstrom,
        level=reading.level,
        invert=reading.invert,
        axes=reading.axes,
        bytes=reading.bytes_are,
        mask=None if options.mask is None else str(pathlib.Path(options.mask).absolute()),
    )


def _as_asked(entry: ModelEntry, effort: Effort, picking: PickingOptions) -> ModelEntry:
    """The model with what the options say instead of its own settings."""
    if picking.refine and picking.no_refine:
        raise InputError("--refine and --no-refine were both given; choose one")
    if picking.merge_radius is not None and not 0 <= picking.merge_radius <= 2:
        raise InputError(f"--merge-radius is {picking.merge_radius:g}; expected a fraction of the radius from 0 to 2")
    own = entry.inference
    inference = dataclasses.replace(
        own,
        stride_zyx=stride_of(effort, entry.patch_zyx, entry.stride_zyx),
        refine=picking.refine if picking.refine or picking.no_refine else own.refine,
        merge_radius=own.merge_radius if picking.merge_radius is None else picking.merge_radius,
    )
    return dataclasses.replace(entry, inference=inference)
