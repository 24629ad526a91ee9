"""Datasets of the CryoET Data Portal: their runs and tomograms, which stay there; `portal_picks.py` has their picks.

Listings come from the portal's own client, files from its public bucket.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats.base import check_names
from jaxcryo.picks.formats.portal import plain_name
from jaxcryo.picks.geometry import Note, ignore
from jaxcryo.picks.run_names import listed
from jaxcryo.stores.address import Address, Location, location

URL: str | None = None
"""The address of the portal's API; None for the usual one."""
POINT_SHAPES = ("OrientedPoint", "Point")
"""Shapes that are read; if an annotation has both, the first is taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortalTomogram:
    """A reconstruction of a run."""

    run: str
    kind: str
    """How it was made, in copick's terms: `wbp-denoised-denoiset-ctfdeconv`."""
    spacing_angstrom: float
    address: Location
    alignment: int | None
    """The alignment of the tilt series; in another one the same position is another place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PortalPoints:
    """A file of points of a run."""

    run: str
    particle: str
    """The portal's name for it."""
    address: Location
    spacing_angstrom: float
    shape: str
    is_truth: bool
    annotation: int
    deposition: int | None
    method: str
    alignment: int | None
    user: str = ""
    session: str = ""
    """As in copick; the portal has none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Portal:
    """The listing of some datasets of the portal, or of a manifest."""

    title: str
    choice: str = "--deposition"
    """The options that choose among picks."""
    runs: tuple[str, ...]
    tomograms: tuple[PortalTomogram, ...]
    points: tuple[PortalPoints, ...]


def open_portal(datasets: Sequence[int], *, by_id: bool = False) -> Portal:
    """Asks the portal. Runs are called by their names, or by their numbers as in copick.

    Raises:
        InputError: the client is not installed, the portal does not answer or has no such dataset, or two runs have the
            same name.
    """
    title = f"portal:{','.join(map(str, datasets))}"
    module = _client_package(title)
    try:
        parts = [_of_dataset(module, _client(URL), number, by_id) for number in dict.fromkeys(datasets)]
    except InputError:
        raise
    except Exception as error:  # of the client's HTTP and GraphQL libraries
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            f"{title}: the CryoET Data Portal cannot be asked ({reason[:200]}); try again later, or update "
            "cryoet-data-portal"
        ) from error
    runs = [run for part in parts for run in part.runs]
    twice = sorted({run for run in runs if runs.count(run) > 1})
    if twice:
        raise InputError(f"{title}: several of these datasets have a run {twice[0]}; pass them one at a time")
    check_names(runs, "run", title)
    return Portal(
        title=title,
        runs=tuple(sorted(runs)),
        tomograms=tuple(t for part in parts for t in part.tomograms),
        points=tuple(p for part in parts for p in part.points),
    )


def portal_runs(
    portal: Portal,
    *,
    names: Sequence[str] | None = None,
    tomogram_type: str = "denoised",
    voxel_spacing_folder: str | None = None,
    near_angstrom: float | None = None,
    note: Note = ignore,
) -> list[Run]:
    """The runs that have the tomogram, or those named, in the order of their names.

    A tomogram has a type if its own type has all parts of it in the same order: `denoised`, `wbp-denoised`. Among
    several spacings, that of `voxel_spacing_folder` is taken, else the one nearest to `near_angstrom`.

    Raises:
        InputError: there is no such run or tomogram, or it is not clear which one is meant.
    """
    unknown = [n for n in names or () if n not in portal.runs]
    if unknown:
        raise InputError(f"{portal.title}: has no run {listed(unknown)}; its runs are {listed(portal.runs)}")
    spacing = None if voxel_spacing_folder is None else _spacing(voxel_spacing_folder)
    runs, without = [], []
    for name in portal.runs if names is None else sorted(set(names)):
        own = [t for t in portal.tomograms if t.run == name]
        fitting = [
            t
            for t in own
            if _is_kind(t.kind, tomogram_type) and (spacing is None or abs(t.spacing_angstrom - spacing) < 5e-4)
        ]
        if fitting and near_angstrom is not None:
            best = min(abs(t.spacing_angstrom - near_angstrom) for t in fitting)
            fitting = [t for t in fitting if abs(t.spacing_angstrom - near_angstrom) <= best + 1e-6]
        exact = [t for t in fitting if t.kind == plain_name(tomogram_type)]
        fitting = exact or fitting
        if not fitting:
            without.append(name)
        elif len(fitting) > 1:
            raise InputError(
                f"{portal.title}: {name} has several tomograms of type {tomogram_type}: {_kinds(fitting)}; choose with "
                "--tomogram-type and --voxel-spacing-folder"
            )
        else:
            runs.append(Run(name=name, volume_path=fitting[0].address))
    if without and (names is not None or not runs):
        raise InputError(
            f"{portal.title}: {listed(without)} has no tomogram of type {tomogram_type}; there is "
            f"{_kinds([t for t in portal.tomograms if t.run in without])}: choose with --tomogram-type and "
            "--voxel-spacing-folder"
        )
    if without:
        note(f"{portal.title}: {len(without)} runs have no such tomogram and are skipped")
    return runs


def _client_package(title: str) -> ModuleType:
    try:
        import cryoet_data_portal
    except ImportError as error:
        raise InputError(
            f"{title}: the CryoET Data Portal is asked by its own client; install it with pip install "
            "cryoet-data-portal"
        ) from error
    return cryoet_data_portal


@functools.cache
def _client(url: str | None) -> Any:
    """Takes a second: it reads the portal's whole schema."""
    import cryoet_data_portal

    return cryoet_data_portal.Client(url)


def _of_dataset(module: ModuleType, client: Any, number: int, by_id: bool) -> Portal:
    """Six requests, whatever the number of runs."""
    found = module.Run.find(client, [module.Run.dataset_id == number])
    if not found:
        raise InputError(f"portal:{number}: the CryoET Data Portal has no such dataset, or it has no runs")
    name_of = {r.id: str(r.id) if by_id else r.name for r in found}
    tomograms = module.Tomogram.find(client, [module.Tomogram.run.dataset_id == number])
    spacings = module.TomogramVoxelSpacing.find(client, [module.TomogramVoxelSpacing.run.dataset_id == number])
    annotations = module.Annotation.find(client, [module.Annotation.run.dataset_id == number])
    shapes = module.AnnotationShape.find(client, [module.AnnotationShape.annotation.run.dataset_id == number])
    files = module.AnnotationFile.find(
        client, [module.AnnotationFile.annotation_shape.annotation.run.dataset_id == number]
    )
    spacing_of = {s.id: float(s.voxel_spacing) for s in spacings}
    annotation_of, shape_of = {a.id: a for a in annotations}, {s.id: s for s in shapes}
    points = []
    for file in files:
        shape = shape_of.get(file.annotation_shape_id)
        annotation = None if shape is None else annotation_of.get(shape.annotation_id)
        spacing = spacing_of.get(file.tomogram_voxel_spacing_id)
        if shape is None or annotation is None or shape.shape_type not in POINT_SHAPES or file.format != "ndjson":
            continue
        if spacing is None:
            spacing = spacing_of.get(annotation.tomogram_voxel_spacing_id)
        if spacing is None or annotation.run_id not in name_of:
            continue
        points.append(
            PortalPoints(
                run=name_of[annotation.run_id],
                particle=annotation.object_name,
                address=_address(file.s3_path),
                spacing_angstrom=spacing,
                shape=shape.shape_type,
                is_truth=bool(annotation.ground_truth_status),
                annotation=annotation.id,
                deposition=annotation.deposition_id,
                method=str(annotation.annotation_method)[:60],
                alignment=file.alignment_id,
            )
        )
    return Portal(
        title=f"portal:{number}",
        runs=tuple(name_of.values()),
        tomograms=tuple(
            PortalTomogram(
                run=name_of[t.run_id],
                kind=_kind(t),
                spacing_angstrom=float(t.voxel_spacing),
                address=_address(t.s3_omezarr_dir),
                alignment=t.alignment_id,
            )
            for t in tomograms
            if t.s3_omezarr_dir and t.run_id in name_of
        ),
        points=tuple(points),
    )


def _kind(tomogram: Any) -> str:
    parts = [tomogram.reconstruction_method, tomogram.processing, tomogram.processing_software]
    parts += ["ctfdeconv"] if tomogram.ctf_corrected else []
    return plain_name("-".join(str(p) for p in parts if p))


def _is_kind(kind: str, wanted: str) -> bool:
    parts = iter(kind.split("-"))
    return all(part in parts for part in plain_name(wanted).split("-"))


def _address(text: str) -> Address:
    place = location(text)
    if not isinstance(place, Address):
        raise InputError(f"{text!r}: is not an address; expected s3://… from the CryoET Data Portal")
    return place


def _spacing(text: str) -> float:
    number = text.removeprefix("VoxelSpacing")
    if not re.fullmatch(r"\d{1,6}(\.\d{1,6})?", number):
        raise InputError(f"--voxel-spacing-folder is {text!r}; expected one such as VoxelSpacing10.012")
    return float(number)


def _kinds(tomograms: Sequence[PortalTomogram]) -> str:
    return listed(sorted({f"{t.kind} at {t.spacing_angstrom:.3f} Å" for t in tomograms})) if tomograms else "none"
