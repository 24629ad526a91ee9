"""`jaxcryo picks`: picks in other formats, at other thresholds, and corrected."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from jaxcryo.cli.apply import APPLY
from jaxcryo.cli.command import Command, Group, Switch, shown
from jaxcryo.cli.options import GeometryOptions, TruthOptions
from jaxcryo.errors import InputError
from jaxcryo.picking.aim import Aim

if TYPE_CHECKING:
    from jaxcryo.domain import ParticleType, Picks
    from jaxcryo.picks.formats import Geometries, PickFormat


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicksOptions:
    """Picks in one format to be written in another."""

    picks: Annotated[Positional[str], shown("IN")]
    """file or folder of picks"""
    out: Annotated[Positional[str], shown("OUT")]
    """file or folder to write"""
    from_: Annotated[str | None, shown("NAME", default="recognized", name="from")] = None
    """format of IN: csv, kaggle, copick, relion4, relion5, dynamo, napari, eman2, imod, coords, m"""
    to: Annotated[str | None, shown("NAME", default="by OUT's suffix")] = None
    """format of OUT"""
    particles: Annotated[str | None, shown("FILE", default="those of the inference, else the challenge's")] = None
    """particle types: a copick config.json or a short .toml file (docs/formats.md)"""
    data: Annotated[str | None, shown("DIR")] = None
    """tomograms, to read voxel spacings and sizes from"""
    voxel_spacing: Annotated[float | None, shown("ANGSTROM")] = None
    """voxel spacing in Å (Dynamo and napari)"""
    force: Switch = False
    """replace existing files"""
    geometry: GeometryOptions = GeometryOptions()
    truth: TruthOptions = TruthOptions()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertOptions(PicksOptions):
    """Convert picks to another format. All formats and their coordinates: docs/formats.md"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdOptions(PicksOptions):
    """Select the picks above other thresholds, without running the networks again.

    In the folder of an inference thresholds may also be lower than its own. OUT has the format of IN unless --to is
    given.
    """

    thresholds: Annotated[str | None, shown("FILE", default="those of the inference")] = None
    """JSON: {"ribosome": 0.5, ...}; types that are not named keep the thresholds of the inference"""
    aim: Annotated[Aim | None, shown("AIM")] = None
    """choose thresholds anew for this aim: recall, balanced, or precision; needs calibrated models"""


CONVERT = Command(
    name="picks convert",
    summary="convert picks between formats",
    options=ConvertOptions,
    action="jaxcryo.cli.picks:convert",
    examples={
        "picks convert picks/ particles/ --to relion5 --pixel-size 1.54 --unbinned-size 4096 4096 1200": (
            "picks of an inference, as one STAR file per particle type for RELION 5"
        ),
        "picks convert picks/ particles.tbl --data tomograms/": "a Dynamo table, in voxels of these tomograms",
        "picks convert refined/ribosome.star truth/ --to copick --tomograms tomograms.star": (
            "picks to train on, in copick's layout"
        ),
    },
)
THRESHOLD = Command(
    name="picks threshold",
    summary="select the picks above other thresholds",
    options=ThresholdOptions,
    action="jaxcryo.cli.picks:threshold",
    examples={
        "picks threshold picks/ stricter/ --thresholds thresholds.json": (
            'of an inference\'s picks, all above {"ribosome": 0.5, ...}, also below its own thresholds'
        ),
        "picks threshold picks/ sure/ --aim precision": "as many picks as possible while 95 % of them are right",
    },
)
PICKS = Group(
    name="picks",
    summary="convert picks between formats, choose thresholds, or apply corrections",
    commands=(CONVERT, THRESHOLD, APPLY),
)
main = PICKS.main


def convert(options: ConvertOptions) -> None:
    """Writes the picks in another format."""
    from jaxcryo.picks.formats import format_for, write_picks

    found, source, geometries, _ = _read(options)
    target = format_for(options.out, options.to)
    files = write_picks(found, options.out, target, geometries, force=options.force)
    _report(options.out, files, found, source, target)


def threshold(options: ThresholdOptions) -> None:
    """Writes the picks above the thresholds."""
    from jaxcryo.cli.deciding import pick_for_aim, read_decision, said_of
    from jaxcryo.cli.geometry import say
    from jaxcryo.picks.folder import PicksFolder
    from jaxcryo.picks.formats import format_for, write_picks
    from jaxcryo.picks.thresholds import read_thresholds, with_thresholds

    found, source, geometries, types = _read(options)
    target = source if options.to is None else format_for(options.out, options.to)
    if options.thresholds is None and options.aim is None:
        raise InputError("neither --thresholds nor --aim was given; pass one, or both")
    given = {} if options.thresholds is None else read_thresholds(options.thresholds)
    with_thresholds(types, given)  # unknown names
    if options.aim is None:
        decided = read_decision(options.picks)
        in_force = {} if decided is None else decided[0]
        folder = PicksFolder(path=pathlib.Path(options.picks))
        chosen = folder.above(given, found, types, in_force=in_force, note=say)
        print(_counts(found, chosen, types, given))
    else:
        decision, chosen = pick_for_aim(options.picks, list(found), types, options.aim, given)
        print("\n".join(said_of(decision, chosen)))
        print(_counts(found, chosen, types, {t.name: t.threshold for t in decision.types}))
    files = write_picks(chosen, options.out, target, geometries, force=options.force)
    _report(options.out, files, chosen, source, target)


def _read(options: PicksOptions) -> tuple[dict[str, Picks], PickFormat, Geometries, tuple[ParticleType, ...]]:
    """The picks of each run, their format, what its coordinates refer to, and their types."""
    from jaxcryo.cli.geometry import geometries_of, say
    from jaxcryo.picks.folder import PicksFolder
    from jaxcryo.picks.formats import copick_by, detect, format_of, read_picks
    from jaxcryo.project.dataset import find_runs
    from jaxcryo.project.particles import read_particles

    named = options.particles
    types = PicksFolder(path=pathlib.Path(options.picks)).types() if named is None else read_particles(named)
    source = format_of(options.from_) if options.from_ else detect(options.picks)
    user, session = options.truth.picks_user, options.truth.picks_session
    if user is not None or session is not None:
        if source.name != "copick":
            raise InputError(
                f"--picks-user and --picks-session select picks of copick, and {options.picks} is {source.title}"
            )
        source = copick_by(user, session)
    runs = [] if options.data is None else find_runs(options.data)
    geometries = geometries_of(options.geometry, options.voxel_spacing, runs, say)
    found = read_picks(options.picks, types, geometries, format_=source, note=say)
    return found, source, geometries, types


def _report(
    out: str, files: Sequence[pathlib.Path], found: Mapping[str, Picks], source: PickFormat, target: PickFormat
) -> None:
    from jaxcryo.picks.formats import losses

    count = sum(map(len, found.values()))
    place = out if len(files) == 1 else f"{len(files)} files in {out}"
    print(
        f"{count} picks of {len(found)} run{'' if len(found) == 1 else 's'}: {source.title} → {target.title}, {place}"
    )
    lost = losses(found, target)
    if lost:
        print(f"{target.title} cannot hold {'; '.join(lost)}")


def _counts(
    before: Mapping[str, Picks],
    after: Mapping[str, Picks],
    types: Sequence[ParticleType],
    thresholds: Mapping[str, float],
) -> str:
    lines = []
    for index, type_ in enumerate(types):
        old, new = (sum(int((p.type_index == index).sum()) for p in picks.values()) for picks in (before, after))
        limit = thresholds.get(type_.name)
        lines.append(f"  {type_.name}: {new}{' as before' if limit is None else f' above {limit:g}, {old} before'}")
    return "\n".join(lines)
