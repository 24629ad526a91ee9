"""`python -m jaxcryo.score`: the official metric of picks against a dataset's known ones."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxcryo.cli.common import parser, reports_errors
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, particle_types_from_copick
from jaxcryo.errors import InputError
from jaxcryo.io.picks import read_copick_folder, read_submission
from jaxcryo.io.truth import read_truth
from jaxcryo.metric import Score, score
from jaxcryo.report import score_table

EXAMPLES = """examples:
  python -m jaxcryo.score picks/ data/
      the picks that infer.py wrote, against all known picks of the dataset
  python -m jaxcryo.score picks/submission.csv data/ --runs TS_5_4
      a Kaggle submission, on one run
  python -m jaxcryo.score picks/ data/ --json
      for programs: one object with weighted_f4 and the per-type counts, precision, recall and F4
"""


@reports_errors
def main(argv: Sequence[str] | None = None, *, prog: str = "python -m jaxcryo.score") -> int:
    """Runs the command."""
    p = parser("Score picks as the challenge does.", EXAMPLES, prog)
    p.add_argument("picks", metavar="PICKS", help="folder with ExperimentRuns/, or a submission table (.csv)")
    p.add_argument("data", metavar="DIR", help="dataset whose known picks are the truth")
    p.add_argument("--runs", nargs="+", metavar="NAME", help="score these runs only (default: all with known picks)")
    p.add_argument("--config", metavar="JSON", help="copick config.json with other particle types")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    args = p.parse_args(argv)
    types = particle_types_from_copick(args.config) if args.config else CZII_TYPES
    truth = read_truth(args.data, types, args.runs)
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
