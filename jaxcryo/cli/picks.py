"""`jaxcryo picks`: converts picks between formats, and applies other thresholds to them."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping, Sequence

from jaxcryo.cli.common import PARTICLES_HELP, parser, reports_errors
from jaxcryo.cli.geometry import add_frame_options, frames_of, say
from jaxcryo.cli.rethreshold import pick_anew, types_of
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.picks.formats import (
    FORMATS,
    PickFormat,
    detect,
    format_for,
    losses,
    read_picks,
    write_picks,
)
from jaxcryo.picks.thresholds import read_thresholds, with_thresholds
from jaxcryo.project.dataset import find_runs
from jaxcryo.project.particles import read_particles

EXAMPLES = """examples:
  jaxcryo picks convert picks/ particles/ --to relion5 --pixel-size 1.54 --unbinned-size 4096 4096 1200
      what infer.py wrote, as one STAR file a particle for RELION 5
  jaxcryo picks convert picks/ particles.tbl --data tomograms/
      a Dynamo table, in voxels of these tomograms
  jaxcryo picks convert refined/ribosome.star truth/ --to copick --tomograms tomograms.star
      picks to train on, in copick's layout
  jaxcryo picks threshold picks/ stricter/ --thresholds thresholds.json
      of what infer.py found, also below its own thresholds, all above {"ribosome": 0.5, ...}, without the networks

All formats and their coordinates: docs/formats.md
"""


@reports_errors
def main(argv: Sequence[str] | None = None, *, prog: str = "jaxcryo picks") -> int:
    """Runs the command."""
    args = _parser(prog).parse_args(argv)
    types = read_particles(args.particles) if args.particles else types_of(args.picks)
    source = FORMATS[args.from_] if args.from_ else detect(args.picks)
    target = source if args.command == "threshold" and args.to is None else format_for(args.out, args.to)
    frames = frames_of(args, [] if args.data is None else find_runs(args.data), say)
    found = read_picks(args.picks, types, frames, format_=source, note=say)
    if args.command == "threshold":
        thresholds = read_thresholds(args.thresholds)
        with_thresholds(types, thresholds)  # unknown names
        before, found = found, pick_anew(args.picks, found, types, thresholds, say)
        print(_counts(before, found, types, thresholds))
    files = write_picks(found, args.out, target, frames, force=args.force)
    _report(args.out, files, found, source, target)
    return 0


def _report(
    out: str, files: Sequence[pathlib.Path], found: Mapping[str, Picks], source: PickFormat, target: PickFormat
) -> None:
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


def _parser(prog: str) -> argparse.ArgumentParser:
    p = parser("Convert picks between formats, or apply other thresholds to them.", EXAMPLES, prog)
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    convert = commands.add_parser("convert", help="to another format", allow_abbrev=False)
    threshold = commands.add_parser("threshold", help="keep the picks above thresholds", allow_abbrev=False)
    for command in (convert, threshold):
        command.add_argument("picks", metavar="IN", help="file or folder of picks")
        command.add_argument("out", metavar="OUT", help="file or folder to write")
        command.add_argument("--from", dest="from_", choices=FORMATS, help="the format of IN (default: recognised)")
        command.add_argument("--to", choices=FORMATS, help="the format of OUT")
        command.add_argument("--particles", metavar="FILE", help=PARTICLES_HELP)
        command.add_argument("--data", metavar="DIR", help="the tomograms, to read voxel spacings and sizes from")
        command.add_argument("--voxel-spacing", type=float, metavar="ANGSTROM", help="for Dynamo and napari")
        add_frame_options(command)
        command.add_argument("--force", action="store_true", help="replace files that are there")
    threshold.add_argument("--thresholds", required=True, metavar="FILE", help='JSON: {"ribosome": 0.5, ...}')
    return p
