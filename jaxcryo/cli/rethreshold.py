"""Picks at other thresholds, from the candidates that inference leaves beside its picks."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcryo.calling import command
from jaxcryo.cli.deciding import read_decision
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json
from jaxcryo.picking.aim import Aim
from jaxcryo.picking.thresholds import Decision, decide
from jaxcryo.picks.candidates import read_candidates
from jaxcryo.picks.formats import above_thresholds
from jaxcryo.picks.geometry import Note
from jaxcryo.serialize import types_from_json


def pick_anew(
    place: str | pathlib.Path,
    found: Mapping[str, Picks],
    types: tuple[ParticleType, ...],
    thresholds: Mapping[str, float],
    note: Note,
) -> dict[str, Picks]:
    """The picks above these thresholds; a type that has none keeps the picks in `found`.

    Where `place` is a folder of `infer.py` with the candidates of all runs, thresholds may also be lower than those
    of the inference; `note` is told what goes beyond what was saved.

    Raises:
        InputError: the candidates, or picks without scores, cannot be used; a threshold is for an unknown type.
    """
    used = _settings(pathlib.Path(place) / "settings.json")
    candidates = read_candidates(place, types, found)
    if set(candidates) != set(found) or not isinstance(used.get("floor"), int | float):
        _note_lower(thresholds, _numbers(used.get("thresholds")), note)
        return {run: above_thresholds(picks, dict(thresholds)) for run, picks in found.items()}
    floor = float(used["floor"])
    _note_lower(thresholds, dict.fromkeys(thresholds, floor), note)
    # A type that is left out stays at the thresholds of the inference.
    decided = read_decision(place)
    in_force = _numbers(used.get("thresholds")) | ({} if decided is None else decided[0])
    limits = {t.name: in_force[t.name] for t in types if t.name in in_force}
    return {run: above_thresholds(picks, limits | dict(thresholds)) for run, picks in candidates.items()}


def pick_for_aim(
    place: str | pathlib.Path,
    runs: Sequence[str],
    types: tuple[ParticleType, ...],
    aim: Aim,
    given: Mapping[str, float],
) -> tuple[Decision, dict[str, Picks]]:
    """Thresholds for an aim over the candidates of an inference's folder, and the picks; what is given is kept.

    Raises:
        InputError: the models were not calibrated, or candidates are missing.
    """
    known = read_decision(place)
    candidates = read_candidates(place, types, runs)
    if known is None or set(candidates) != set(runs):
        raise InputError(
            f"{place}: has no calibration or not all candidates; --aim needs the folder that '{command('infer')}' "
            "wrote with calibrated models"
        )
    decision = decide([candidates[run] for run in runs], types, known[1], aim=aim, given=given)
    return decision, {run: decision.select(candidates[run]) for run in runs}


def types_of(place: str | pathlib.Path) -> tuple[ParticleType, ...]:
    """The particle types that `infer.py` says it looked for in this folder, else the challenge's.

    Raises:
        InputError: its settings name types that are none.
    """
    particles = _settings(pathlib.Path(place) / "settings.json").get("particles")
    if not isinstance(particles, list) or not particles or not all(isinstance(p, dict) for p in particles):
        return CZII_TYPES
    return types_from_json(particles)


def _note_lower(thresholds: Mapping[str, float], saved: Mapping[str, float], note: Note) -> None:
    """Says where thresholds are below what was saved."""
    below = [f"{name} ({saved[name]:g})" for name, value in thresholds.items() if value < saved.get(name, -math.inf)]
    if below:
        note(
            f"picks below these values of their inference were not saved: {', '.join(below)}; "
            f"run '{command('infer')}' again"
        )


def _settings(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = read_json(path, "expected the settings of an inference")
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
