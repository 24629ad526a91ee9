"""`python -m jaxcryo.picks`: converts picks between formats, and applies other thresholds to them."""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence

from jaxcryo.cli.common import parser, reports_errors
from jaxcryo.cli.frames import add_frame_options, frames_of, say
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, particle_types_from_copick
from jaxcryo.errors import InputError
from jaxcryo.io.bounded import read_json
from jaxcryo.io.dataset import find_runs
from jaxcryo.io.formats import (
    FORMATS,
    PickFormat,
    above_thresholds,
    detect,
    format_for,
    losses,
    read_picks,
    write_picks,
)

EXAMPLES = """examples:
  python -m jaxcryo.picks convert picks/ particles/ --to relion5 --pixel-size 1.54 --unbinned-size 4096 4096 1200
      what infer.py wrote, as one STAR file a particle for RELION 5
  python -m jaxcryo.picks convert picks/ particles.tbl --data tomograms/
      a Dynamo table, in voxels of these tomograms
  python -m jaxcryo.picks convert refined/ribosome.star truth/ --to copick --tomograms tomograms.star
      picks to train on, in copick's layout
  python -m jaxcryo.picks threshold picks/ stricter/ --thresholds thresholds.json
      of picks with scores those above {"ribosome": 0.5, ...}, without running the networks again

All formats and their coordinates: docs/formats.md
"""


@reports_errors
def main(argv: Sequence[str] | None = None, *, prog: str = "python -m jaxcryo.picks") -> int:
    """Runs the command."""
    args = _parser(prog).parse_args(argv)
    types = particle_types_from_copick(args.config) if args.config else CZII_TYPES
    source = FORMATS[args.from_] if args.from_ else detect(args.picks)
    target = source if args.command == "threshold" and args.to is None else format_for(args.out, args.to)
    frames = frames_of(args, [] if args.data is None else find_runs(args.data), say)
    found = read_picks(args.picks, types, frames, format_=source, note=say)
    if args.command == "threshold":
        thresholds = _thresholds(args.thresholds)
        kept = {run: above_thresholds(picks, thresholds) for run, picks in found.items()}
        _note_floor(args.picks, thresholds)
        print(_counts(found, kept, types, thresholds))
        found = kept
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
        lines.append(f"  {type_.name}: {new} of {old}, {'all kept' if limit is None else f'above {limit:g}'}")
    return "\n".join(lines)


def _thresholds(path: str) -> dict[str, float]:
    expected = 'expected a threshold for each particle, as {"ribosome": 0.5}'
    content = read_json(path, expected, limit=2**20)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no thresholds; {expected}")
    for name, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise InputError(f"{path}: the threshold of {name[:80]!r} is no finite number; {expected}")
    return {name: float(value) for name, value in content.items()}


def _note_floor(picks: str, thresholds: Mapping[str, float]) -> None:
    """Says where thresholds are below those that the picks were found with: what is between was never saved."""
    try:
        used = json.loads((pathlib.Path(picks) / "settings.json").read_text(encoding="utf-8"))["thresholds"]
        below = [f"{name} ({used[name]:g})" for name, value in thresholds.items() if value < used.get(name, -math.inf)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    if below:
        say(f"picks below the thresholds of their inference were not saved: {', '.join(below)}; run infer.py again")


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
        command.add_argument("--config", metavar="JSON", help="copick config.json with other particle types")
        command.add_argument("--data", metavar="DIR", help="the tomograms, to read voxel spacings and sizes from")
        command.add_argument("--voxel-spacing", type=float, metavar="ANGSTROM", help="for Dynamo and napari")
        add_frame_options(command)
        command.add_argument("--force", action="store_true", help="replace files that are there")
    threshold.add_argument("--thresholds", required=True, metavar="FILE", help='JSON: {"ribosome": 0.5, ...}')
    return p
