"""`jaxcryo score`: the official metric of picks against known ones."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from jaxcryo.cli.command import Command, Switch, shown
from jaxcryo.cli.options import Particles, TruthOptions
from jaxcryo.errors import InputError

if TYPE_CHECKING:
    from jaxcryo.domain import ParticleType, Picks
    from jaxcryo.metric import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Score picks as the CZII challenge does."""

    picks: Annotated[Positional[pathlib.Path], shown("PICKS")]
    """folder with ExperimentRuns/, or a submission table (.csv)"""
    data: Annotated[Positional[str | None], shown("DIR")] = None
    """dataset, or metadata.json of a Croissant manifest, whose known picks are ground truth"""
    copick: Annotated[str | None, shown("JSON")] = None
    """copick project whose picks are ground truth, instead of DIR"""
    portal: Annotated[tuple[int, ...], shown("NUMBER ...", default="none")] = ()
    """datasets of the CryoET Data Portal whose picks are ground truth, instead of DIR"""
    runs: Annotated[tuple[str, ...], shown("NAME ...", default="all with known picks")] = ()
    """runs to score"""
    particles: Particles = None
    """particle types: a copick config.json or a short .toml file (docs/formats.md)"""
    json: Switch = False
    """print one JSON object instead of the table"""
    truth: TruthOptions = TruthOptions()


SCORE = Command(
    name="score",
    summary="score picks against known ones, as the CZII challenge does",
    options=ScoreOptions,
    action="jaxcryo.cli.score:score_picks",
    examples={
        "score picks/ data/": "picks of an inference, against all known picks of the dataset",
        "score picks/submission.csv data/ --runs TS_5_4": "a Kaggle submission, on one run",
        "score picks/ --portal 10446": "against the ground truth of a dataset of the CryoET Data Portal",
        "score picks/ data/ --json": (
            "for programs: one object with weighted_f4 and, for each type, counts, precision, recall and F4"
        ),
    },
)
main = SCORE.main


def score_picks(options: ScoreOptions) -> None:
    """Prints the score."""
    from jaxcryo.cli.inputs import check_truth, read_types
    from jaxcryo.metric import score
    from jaxcryo.report import score_table

    check_truth(options.truth, options.copick, options.portal, options.data)
    types = read_types(options.particles, options.copick)
    truth = _truth(options, types)
    found = read_found(options.picks, types)
    without = [run for run in truth if run not in found]
    if len(without) == len(truth):
        raise InputError(
            f"{options.picks}: has no picks of {', '.join(truth)}; it has picks of "
            f"{', '.join(sorted(found)) or 'no run'}"
        )
    result = score(truth, found, types)
    if options.json:
        print(json.dumps(to_json(result, list(truth))))
        return
    print(f"{len(truth)} run{'' if len(truth) == 1 else 's'}: {', '.join(truth)}")
    if without:
        print(f"no picks of {', '.join(without)}: all their particles count as missed (choose runs with --runs)")
    print(score_table(result))


def _truth(options: ScoreOptions, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    from jaxcryo.cli.inputs import listed_picks, open_source_portal
    from jaxcryo.picks.folder import PicksFolder
    from jaxcryo.project.copick import has_picks, open_project, project_picks
    from jaxcryo.project.dataset import read_truth

    portal = open_source_portal(options.portal, options.data, options.copick)
    if portal is not None:
        picked = {run.name: run for run in PicksFolder(path=pathlib.Path(options.picks)).origins()}
        runs = [picked.get(name, name) for name in options.runs or portal.runs]  # in the alignment that was picked
        found = listed_picks(portal, runs, types, options.truth)
        missing = [n for n in options.runs if n not in found] or ([] if found else ["any run"])
        if missing:
            particles = ", ".join(t.name for t in types)
            raise InputError(f"{portal.title}: has no picks of {particles} in {', '.join(missing)}; choose other runs")
        return found
    if options.copick is None:
        if options.data is None:
            raise InputError("no ground truth was given; pass a dataset, a copick project with --copick, or --portal")
        return read_truth(options.data, types, options.runs or None)
    project = open_project(options.copick)
    user, session = options.truth.picks_user, options.truth.picks_session
    names = options.runs or [n for n in project.run_names() if has_picks(project, n, types, user=user, session=session)]
    if not names:
        raise InputError(f"{options.copick}: no run has matching picks of {', '.join(t.name for t in types)}")
    return {n: project_picks(project, n, types, user=user, session=session) for n in sorted(set(names))}


def read_found(path: str | pathlib.Path, types: tuple[ParticleType, ...]) -> dict[str, Picks]:
    """Picks by run from the folder of an inference, or from a submission table."""
    from jaxcryo.picks.copick_json import read_copick_folder
    from jaxcryo.picks.formats.tables import read_submission

    path = pathlib.Path(path)
    if not path.exists():
        raise InputError(f"{path}: does not exist; expected the folder of an inference, or a submission table")
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
