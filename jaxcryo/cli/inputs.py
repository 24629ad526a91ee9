"""The runs that a command works on, and what is known of their particles."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from jaxcryo.cli.geometry import read_given_picks, say
from jaxcryo.cli.options import GeometryOptions, InputOptions, TruthOptions
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.project.copick import CopickProject, open_project, project_picks, project_runs
from jaxcryo.project.croissant import is_manifest, open_manifest
from jaxcryo.project.dataset import Split, find_runs, read_truth
from jaxcryo.project.particles import read_particles
from jaxcryo.project.portal import Portal, open_portal, portal_runs
from jaxcryo.project.portal_picks import portal_picks
from jaxcryo.stores.cache import Cache
from jaxcryo.tomogram.volumes import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The runs that a command works on."""

    place: str
    """The folder or the project's file, for messages."""
    runs: list[Run]
    project: CopickProject | None = None
    portal: Portal | None = None


def reading_of(options: InputOptions) -> Reading:
    """How tomograms are to be read."""
    return Reading(
        spacing_angstrom=options.voxel_spacing,
        level=options.level,
        invert=options.invert,
        axes=options.axes,
        bytes_are=options.bytes,
        cache=None if options.cache is None else Cache(options.cache, options.cache_gb),
    )


def find_source(
    data: str | None,
    copick: str | None,
    options: InputOptions,
    *,
    portal: Sequence[int] = (),
    names: Sequence[str] = (),
    train: bool = False,
    near_angstrom: float | None = None,
) -> Source:
    """The runs of a dataset, of a copick project, or of datasets of the portal; only those in `names`, if any.

    Raises:
        InputError: there are none, or it is not clear which tomogram is meant.
    """
    opened = open_source_portal(portal, data, copick)
    if opened is not None:
        runs = portal_runs(
            opened,
            names=names or None,
            tomogram_type=options.tomogram_type,
            voxel_spacing_folder=options.voxel_spacing_folder,
            near_angstrom=near_angstrom,
            note=say,
        )
        project = None if copick is None else open_project(copick)
        return Source(place=copick or opened.title, runs=runs, project=project, portal=opened)
    if copick is None:
        root = data or "data"
        split: Split | None = "train" if train and (pathlib.Path(root) / "train").is_dir() else None
        runs = find_runs(
            root,
            split=split,
            names=names or None,
            tomogram_type=options.tomogram_type,
            voxel_spacing_folder=options.voxel_spacing_folder,
            note=say,
        )
        return Source(place=root, runs=runs)
    project = open_project(copick)
    runs = project_runs(
        project,
        names=names or None,
        tomogram_type=options.tomogram_type,
        voxel_spacing_folder=options.voxel_spacing_folder,
        near_angstrom=near_angstrom,
    )
    left = len(project.run_names()) - len(runs)
    if left and not names:
        say(f"{project.path}: {left} runs have no such tomogram and are skipped")
    return Source(place=copick, runs=runs, project=project)


def open_source_portal(portal: Sequence[int], data: str | None, copick: str | None) -> Portal | None:
    """The listing of the portal's datasets that a number or a copick project names, or of a manifest; None if none.

    Raises:
        InputError: several sources were given, or the portal does not answer.
    """
    options = {"--data": data, "--copick": copick, "--portal": portal or None}
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were both given; choose one")
    if copick is not None:
        datasets = open_project(copick).datasets
        return open_portal(datasets, by_id=True) if datasets else None
    if data is not None and is_manifest(data):
        return open_manifest(data)
    return open_portal(portal) if portal else None


def listed_picks(
    portal: Portal, runs: Sequence[Run | str], types: tuple[ParticleType, ...], truth: TruthOptions
) -> dict[str, Picks]:
    """The picks of a listing that the options mean; raises as `portal_picks` does."""
    return portal_picks(
        portal,
        runs,
        types,
        deposition=truth.deposition,
        user=truth.picks_user,
        session=truth.picks_session,
        note=say,
    )


def read_types(particles: str | None, copick: str | None) -> tuple[ParticleType, ...]:
    """The particle types of a file, else of the copick project, else the challenge's."""
    if particles is not None:
        return read_particles(particles)
    return CZII_TYPES if copick is None else read_particles(copick)


def check_truth(options: TruthOptions, copick: str | None, portal: Sequence[int] = (), data: str | None = None) -> None:
    """Raises InputError for a user or a session without a project or a manifest that has picks of its own, or a
    deposition without the portal.
    """
    of_portal = bool(portal) or (copick is not None and bool(open_project(copick).datasets))
    if options.deposition is not None and not of_portal:
        raise InputError("--deposition selects annotations of the CryoET Data Portal; name datasets with --portal")
    if options.picks_user is None and options.picks_session is None:
        return
    if copick is not None and of_portal:
        raise InputError(
            f"{copick}: its known picks are read from the CryoET Data Portal, where --picks-user and --picks-session "
            "select nothing; choose with --deposition"
        )
    if copick is None and (data is None or not is_manifest(data)):
        raise InputError("--picks-user and --picks-session select picks of a copick project; name it with --copick")


def picks_to_train_on(
    picks: str | None,
    source: Source,
    types: tuple[ParticleType, ...],
    truth: TruthOptions,
    geometry: GeometryOptions,
    spacing_angstrom: float | None,
) -> dict[str, Picks]:
    """The known picks that do not lie beside the tomograms: of the file `picks`, or of the copick project.

    Raises:
        InputError: they cannot be read, or a run has none.
    """
    if picks is not None:
        return read_given_picks(picks, source.runs, types, geometry, spacing_angstrom)
    if source.portal is not None:
        found = listed_picks(source.portal, source.runs, types, truth)
        without = [r.name for r in source.runs if r.name not in found]
        if without:
            raise InputError(
                f"{source.place}: no picks of {', '.join(t.name for t in types)} in {', '.join(without[:10])}; choose "
                "other runs, or pass picks with --picks"
            )
        return found
    if source.project is None:
        return {}
    return {r.name: _of_project(source.project, r.name, types, truth) for r in source.runs}


def known_picks(source: Source, types: tuple[ParticleType, ...], truth: TruthOptions) -> dict[str, Picks]:
    """The known picks of the runs that have any.

    Raises:
        InputError: a user or a session was named, and their picks cannot be used.
    """
    if source.portal is not None:
        try:
            return listed_picks(source.portal, source.runs, types, truth)
        except InputError as error:
            if truth != TruthOptions():
                raise
            say(f"known picks are left out: {error}")
            return {}
    if source.project is None:
        try:
            return read_truth(source.place, types)
        except InputError:
            return {}
    found = {}
    for run in source.runs:
        try:
            found[run.name] = _of_project(source.project, run.name, types, truth)
        except InputError:
            if truth != TruthOptions():
                raise
    return found


def _of_project(project: CopickProject, run: str, types: tuple[ParticleType, ...], truth: TruthOptions) -> Picks:
    return project_picks(project, run, types, user=truth.picks_user, session=truth.picks_session)
