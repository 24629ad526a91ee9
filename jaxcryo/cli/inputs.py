"""The options that say which tomograms to read, and how."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib

from jaxcryo.cli.geometry import given_picks, say
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.project.copick import CopickProject, open_project, project_picks, project_runs
from jaxcryo.project.dataset import Split, find_runs
from jaxcryo.project.particles import read_particles
from jaxcryo.project.truth import read_truth
from jaxcryo.tomogram.volumes import Reading


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The runs that a command is about."""

    place: str
    """The folder or the project's file, for people."""
    runs: list[Run]
    project: CopickProject | None = None


def add_source_options(p: argparse.ArgumentParser, data_help: str) -> None:
    """Adds --data, --copick and what chooses in a copick project, and how tomograms are read."""
    where = p.add_mutually_exclusive_group()
    where.add_argument("--data", default="data", metavar="DIR", help=data_help)
    where.add_argument("--copick", metavar="JSON", help="a copick project on this machine, instead of --data")
    add_picks_options(p)
    p.add_argument("--tomogram-type", default="denoised", help="which reconstruction, where a run has several")
    p.add_argument(
        "--voxel-spacing-folder", metavar="NAME", help="which one, where a run has several, such as VoxelSpacing10.000"
    )
    p.add_argument("--voxel-spacing", type=float, metavar="ANGSTROM", help="of level 0, instead of the files' own")
    p.add_argument("--level", type=int, default=0, help="of an OME-Zarr's resolutions; 0 is the full one")
    p.add_argument(
        "--axes",
        metavar="ORDER",
        help="which axes of the files are x, y and z: xzy for untrimmed IMOD reconstructions; picks stay in the file's",
    )
    p.add_argument(
        "--bytes", default="auto", choices=("auto", "signed", "unsigned"), help="sign of 8-bit MRC files (mode 0)"
    )
    p.add_argument("--invert", action="store_true", help="dark to bright and bright to dark, before anything else")


def add_picks_options(p: argparse.ArgumentParser) -> None:
    """Adds --picks-user and --picks-session."""
    p.add_argument(
        "--picks-user", metavar="NAME", help="whose known picks of a copick project (default: not jaxcryo's)"
    )
    p.add_argument("--picks-session", metavar="NAME", help="from which session of that user")


def reading_of(args: argparse.Namespace) -> Reading:
    """How tomograms are to be read."""
    return Reading(
        spacing_angstrom=args.voxel_spacing,
        level=args.level,
        invert=args.invert,
        axes=args.axes,
        bytes_are=args.bytes,
    )


def source_of(args: argparse.Namespace, *, train: bool = False, near_angstrom: float | None = None) -> Source:
    """The runs that the options name.

    Raises:
        InputError: there are none, or which tomogram is meant is not clear.
    """
    names = getattr(args, "runs", None)
    if args.copick is None:
        if args.picks_user is not None or args.picks_session is not None:
            raise InputError("--picks-user and --picks-session choose in a copick project; give it with --copick")
        split: Split | None = "train" if train and (pathlib.Path(args.data) / "train").is_dir() else None
        runs = find_runs(
            args.data,
            split=split,
            names=names,
            tomogram_type=args.tomogram_type,
            voxel_spacing_folder=args.voxel_spacing_folder,
        )
        return Source(place=args.data, runs=runs)
    project = open_project(args.copick)
    runs = project_runs(
        project,
        names=names,
        tomogram_type=args.tomogram_type,
        voxel_spacing_folder=args.voxel_spacing_folder,
        near_angstrom=near_angstrom,
    )
    left = len(project.run_names()) - len(runs)
    if left and names is None:
        say(f"{project.path}: {left} runs have no such tomogram and are left out")
    return Source(place=args.copick, runs=runs, project=project)


def types_of(args: argparse.Namespace) -> tuple[ParticleType, ...]:
    """The particle types of --particles, else of the copick project, else the challenge's."""
    if args.particles is not None:
        return read_particles(args.particles)
    return CZII_TYPES if args.copick is None else read_particles(args.copick)


def picks_to_train_on(args: argparse.Namespace, source: Source, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    """The known picks that do not lie beside the tomograms: of --picks, or of the copick project.

    Raises:
        InputError: they cannot be read, or a run has none.
    """
    given = given_picks(args, source.runs, types)
    if given or source.project is None:
        return given
    return {r.name: _of_project(args, source.project, r.name, types) for r in source.runs}


def known_picks(args: argparse.Namespace, source: Source, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    """The known picks of the runs that have any.

    Raises:
        InputError: a user or a session was named, and their picks cannot be used.
    """
    if source.project is None:
        try:
            return read_truth(source.place, types)
        except InputError:
            return {}
    found = {}
    for run in source.runs:
        try:
            found[run.name] = _of_project(args, source.project, run.name, types)
        except InputError:
            if args.picks_user is not None or args.picks_session is not None:
                raise
    return found


def _of_project(args: argparse.Namespace, project: CopickProject, run: str, types: tuple[ParticleType, ...]) -> Picks:
    return project_picks(project, run, types, user=args.picks_user, session=args.picks_session)
