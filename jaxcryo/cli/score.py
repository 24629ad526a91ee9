"""`jaxcryo score`: the official metric of picks against a dataset's known ones."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcryo.cli.common import PARTICLES_HELP, parser, reports_errors
from jaxcryo.cli.inputs import add_picks_options, types_of
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.metric import Score, score
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.picks.formats.tables import read_submission
from jaxcryo.project.copick import has_picks, open_project, project_picks
from jaxcryo.project.truth import read_truth
from jaxcryo.report import score_table

EXAMPLES = """examples:
  jaxcryo score picks/ data/
      the picks that infer.py wrote, against all known picks of the dataset
  jaxcryo score picks/submission.csv data/ --runs TS_5_4
      a Kaggle submission, on one run
  jaxcryo score picks/ data/ --json
      for programs: one object with weighted_f4 and the per-type counts, precision, recall and F4
"""


@reports_errors
def main(argv: Sequence[str] | None = None, *, prog: str = "jaxcryo score") -> int:
    """Runs the command."""
    p = parser("Score picks as the challenge does.", EXAMPLES, prog)
    p.add_argument("picks", metavar="PICKS", help="folder with ExperimentRuns/, or a submission table (.csv)")
    p.add_argument("data", metavar="DIR", nargs="?", help="dataset whose known picks are the truth")
    p.add_argument("--copick", metavar="JSON", help="a copick project whose picks are the truth, instead of DIR")
    add_picks_options(p)
    p.add_argument("--runs", nargs="+", metavar="NAME", help="score these runs only (default: all with known picks)")
    p.add_argument("--particles", metavar="FILE", help=PARTICLES_HELP)
    p.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = p.parse_args(argv)
    types = types_of(args)
    truth = _truth(args, types)
    found = read_found(args.picks, types)
    without = [run for run in truth if run not in found]
    if len(without) == len(truth):
        raise InputError(
            f"{args.picks}: has no picks of {', '.join(truth)}; it has of {', '.join(sorted(found)) or 'no run'}"
        )
    result = score(truth, found, types)
    if args.json:
        print(json.dumps(to_json(result, list(truth))))
        return 0
    print(f"{len(truth)} runs: {', '.join(truth)}")
    if without:
        print(f"no picks of {', '.join(without)}: all their particles count as missed (choose runs with --runs)")
    print(score_table(result))
    return 0


def _truth(args: argparse.Namespace, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    if (args.data is None) == (args.copick is None):
        raise InputError("whose picks are the truth? expected a dataset, or a copick project with --copick, not both")
    if args.copick is None:
        return read_truth(args.data, types, args.runs)
    project = open_project(args.copick)
    user, session = args.picks_user, args.picks_session
    names = args.runs or [n for n in project.run_names() if has_picks(project, n, types, user=user, session=session)]
    if not names:
        raise InputError(f"{args.copick}: no run has such picks of {', '.join(t.name for t in types)}")
    return {n: project_picks(project, n, types, user=user, session=session) for n in sorted(set(names))}


def read_found(path: str | pathlib.Path, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    """Picks by run from what infer.py wrote, or from a submission table."""
    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; expected a folder that infer.py wrote, or a submission table")
    return read_copick_folder(path, types) if path.is_dir() else read_submission(path, types)


def to_json(result: Score, runs: Sequence[str]) -> dict[str, Any]:
    """The score as plain values."""
    return {
        "weighted_f4": result.weighted_f4,
        "runs": list(runs),
        "types": {
            kind.name: {
                "truth": c.truth,
                "found": c.found,
                "true_positive": c.true_positive,
                "false_positive": c.false_positive,
                "false_negative": c.false_negative,
                "precision": c.precision,
                "recall": c.recall,
                "f4": c.f_beta,
                "weight": kind.weight,
            }
            for kind, c in zip(result.types, result.counts, strict=True)
        },
    }
