"""The second pass of an inference: thresholds over all its tomograms, and the picks above them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcryo.calibration import Calibration
from jaxcryo.calling import command
from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.picking.aim import Aim
from jaxcryo.picking.thresholds import Decision, decide
from jaxcryo.picks.candidates import read_candidates
from jaxcryo.serialize import from_plain, to_plain

FILE_NAME = "decision.json"
"""A file beside the picks: the thresholds in use, where they come from, and the calibration, for other aims."""


def decide_runs(
    out: pathlib.Path,
    runs: Sequence[str],
    types: tuple[ParticleType, ...],
    calibration: Calibration,
    *,
    aim: Aim,
    given: Mapping[str, float],
    one_type_per_place: bool,
) -> tuple[Decision, dict[str, Picks]] | None:
    """Thresholds over the candidates of these runs, and the picks at them, which `settling.py` writes.

    Thresholds that the user gave are kept. None if candidates of a run are missing.
    """
    candidates = read_candidates(out, types, runs)
    if set(candidates) != set(runs):
        return None
    decision = decide(
        [candidates[run] for run in runs],
        types,
        calibration,
        aim=aim,
        given=given,
        one_type_per_place=one_type_per_place,
    )
    return decision, {run: decision.select(candidates[run]) for run in runs}


def write_decision(out: pathlib.Path, decision: Decision) -> None:
    """Keeps it beside the picks that follow it; raises as `write_text` does."""
    write_text(out / FILE_NAME, json.dumps(_plain(decision), indent=1, ensure_ascii=False) + "\n")


def pick_for_aim(
    place: str | pathlib.Path,
    runs: Sequence[str],
    types: tuple[ParticleType, ...],
    aim: Aim,
    given: Mapping[str, float],
) -> tuple[Decision, dict[str, Picks]]:
    """Thresholds for an aim over the candidates of an inference's folder, and the picks; given thresholds are kept.

    Raises:
        InputError: the models were not calibrated, or candidates are missing.
    """
    known = read_decision(place)
    candidates = read_candidates(place, types, runs)
    if known is None or set(candidates) != set(runs):
        raise InputError(
            f"{place}: lacks a calibration or some candidates; --aim needs the folder that '{command('infer')}' "
            "wrote with calibrated models"
        )
    decision = decide([candidates[run] for run in runs], types, known[1], aim=aim, given=given)
    return decision, {run: decision.select(candidates[run]) for run in runs}


def said_of(decision: Decision, found: Mapping[str, Picks]) -> list[str]:
    """Lines for people: the thresholds, and how many of the picks are expected to be right."""
    lines = [decision.sentence()]
    expected = decision.expected_right(list(found.values()))
    count = sum(map(len, found.values()))
    if expected is not None and count:
        index = np.concatenate([p.type_index for p in found.values()])
        listed = ", ".join(
            f"{t.name} {right:.0f} of {int((index == i).sum())}"
            for i, (t, right) in enumerate(zip(decision.types, expected, strict=True))
            if np.any(index == i)
        )
        lines.append(
            f"expected to be right: {sum(expected):.0f} of {count} picks ({sum(expected) / count:.0%}): {listed}"
        )
    return lines


def read_decision(out: str | pathlib.Path) -> tuple[dict[str, float], Calibration] | None:
    """The thresholds in use in the folder of an inference, and its calibration; None where it has none.

    Raises:
        InputError: the file is damaged.
    """
    path = pathlib.Path(out) / FILE_NAME
    if not path.is_file():
        return None
    plain = read_json(path, "expected the thresholds that an inference wrote")
    if not isinstance(plain, dict) or not isinstance(plain.get("thresholds"), dict):
        raise InputError(f"{path}: has no thresholds; remove it, or run the inference again")
    thresholds = {str(k): float(v) for k, v in plain["thresholds"].items() if isinstance(v, int | float)}
    return thresholds, from_plain(Calibration, plain.get("calibration"), str(path))


def _plain(decision: Decision) -> dict[str, Any]:
    return {
        "aim": decision.aim,
        "tomograms": decision.tomograms,
        "thresholds": {t.name: t.threshold for t in decision.types},
        "levels": {t.name: d.level for t, d in zip(decision.types, decision.decided, strict=True)},
        "fitted": {t.name: d.adapted for t, d in zip(decision.types, decision.decided, strict=True)},
        "one_type_per_place": decision.one_type_per_place,
        "calibration": to_plain(decision.calibration),
    }


def facts_of(decision: Decision, picks: Sequence[Picks]) -> dict[str, str]:
    """What a page says of its thresholds."""
    facts = {"aim": decision.aim, "chosen": decision.sentence()}
    expected = decision.expected_right(picks)
    if expected is not None:
        facts["expected to be right"] = f"{sum(expected):.0f} of {sum(map(len, picks))} picks"
    return facts
