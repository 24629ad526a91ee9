"""What a person decided about the picks of a run, saved from the page or napari, and the corrected picks."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from jaxcryo.domain import Picks, concatenate_picks
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.metric import RADIUS_SHARE
from jaxcryo.picks.geometry import Note, ignore
from jaxcryo.serialize import from_plain, to_plain

KIND = "jaxcryo corrections"
SUFFIX = "-corrections.json"
"""The end of a file's name, after the run's name."""
_EXPECTED = "expected corrections saved from the page of an inference"
_SAME_ANGSTROM = 1e-3
ROUNDED_ANGSTROM = 10.0
"""How far rounding in a format moves a pick. Used where picks may have been corrected before, so that no others go."""

Place = tuple[float, float, float]


def _check_place(xyz: Place) -> None:
    if not all(math.isfinite(v) for v in xyz):
        raise InputError(f"a position is {xyz}; expected three finite numbers (x, y, z in ångströms)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """One pick that was accepted, rejected, given another type, or added."""

    xyz_angstrom: Place
    was: str | None
    """The type it was found as; None for one that was added."""
    now: str | None
    """The type it is; None if it is not a particle of type `was`."""

    def __post_init__(self) -> None:
        _check_place(self.xyz_angstrom)
        if self.was is None and self.now is None:
            raise InputError("a decision names no type, neither before nor now")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """A box in which every particle is marked; its edges belong to it."""

    low_xyz_angstrom: Place
    high_xyz_angstrom: Place

    def __post_init__(self) -> None:
        _check_place(self.low_xyz_angstrom)
        _check_place(self.high_xyz_angstrom)

    def contains(self, xyz_angstrom: Float[NDArray[np.float64], "n 3"]) -> Bool[NDArray[np.bool_], " n"]:
        """Which positions are in it."""
        inside = (xyz_angstrom >= self.low_xyz_angstrom) & (xyz_angstrom <= self.high_xyz_angstrom)
        return np.asarray(inside.all(axis=1), np.bool_)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corrections:
    """What was decided about one run."""

    run: str
    decisions: tuple[Decision, ...] = ()
    complete: tuple[Region, ...] = ()
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Thresholds above which candidates counted as picks unless decided otherwise."""

    def counts(self) -> dict[str, int]:
        """How many picks were accepted, rejected, given another type and added."""
        kinds = [
            "added" if d.was is None else "rejected" if d.now is None else "accepted" if d.was == d.now else "retyped"
            for d in self.decisions
        ]
        return {kind: kinds.count(kind) for kind in ("accepted", "rejected", "retyped", "added")}

    def names(self) -> set[str]:
        """The types that decisions and thresholds name."""
        return {n for d in self.decisions for n in (d.was, d.now) if n is not None} | set(self.thresholds)


def read_corrections(path: str | pathlib.Path) -> Corrections:
    """Corrections as the page saves them.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    plain = read_json(path, _EXPECTED)
    if not isinstance(plain, dict) or plain.get("kind") != KIND:
        raise InputError(f'{path}: has no "kind": "{KIND}"; {_EXPECTED}')
    return from_plain(Corrections, {k: v for k, v in plain.items() if k != "kind"}, str(path))


def write_corrections(path: str | pathlib.Path, corrections: Corrections) -> None:
    """Writes what `read_corrections` and the page read; raises as `write_text` does."""
    plain: dict[str, Any] = {"kind": KIND, **to_plain(corrections)}
    write_text(path, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def corrected(
    picks: Picks,
    corrections: Corrections,
    *,
    candidates: Picks | None = None,
    reach_angstrom: float | None = None,
    note: Note = ignore,
) -> Picks:
    """The picks after the decisions: rejected ones are gone, those that a person confirmed have the score 1.

    A decision is about the pick of its type at its place, or, where picks were found anew, about the nearest within
    half the particle's radius, or within `reach_angstrom`. A rejected position without one changes nothing; a note says
    so if `candidates`, all that could be decided about, have none there either.

    Raises:
        InputError: a type is unknown.
    """
    index_of = {t.name: i for i, t in enumerate(picks.types)}
    unknown = sorted(corrections.names() - set(index_of))
    if unknown:
        raise InputError(
            f"corrections of {corrections.run} name {', '.join(unknown)}; the types of these picks are "
            f"{', '.join(index_of)}"
        )
    keep = np.ones(len(picks), np.bool_)
    lost = 0
    for decision in corrections.decisions:
        if decision.was is None:
            continue
        type_index, place = index_of[decision.was], np.asarray(decision.xyz_angstrom)
        own = _at(picks, keep, type_index, place, _SAME_ANGSTROM)
        if own is None and (candidates is None or _at(candidates, None, type_index, place, _SAME_ANGSTROM) is None):
            reach = RADIUS_SHARE * picks.types[type_index].radius_angstrom
            own = _at(picks, keep, type_index, place, reach if reach_angstrom is None else reach_angstrom)
            lost += own is None and decision.now is None
        if own is not None:
            keep[own] = False
    for decision in corrections.decisions:  # applied before, they are there already
        if decision.now is not None:
            there = _at(picks, keep, index_of[decision.now], np.asarray(decision.xyz_angstrom), _SAME_ANGSTROM)
            if there is not None:
                keep[there] = False
    if lost:
        note(
            f"{corrections.run}: {lost} rejected picks are not among these picks: they may have been "
            "removed before, or belong to another inference"
        )
    named = [d for d in corrections.decisions if d.now is not None]
    sure = Picks(
        run=picks.run,
        types=picks.types,
        xyz_angstrom=np.array([d.xyz_angstrom for d in named], np.float64).reshape(-1, 3),
        type_index=np.array([index_of[d.now] for d in named if d.now is not None], np.int64),
        score=None if picks.score is None and len(picks) else np.ones(len(named)),
        probability=None if picks.probability is None else np.ones(len(named)),
    )
    return concatenate_picks([p for p in (picks.select(keep), sure) if len(p)], picks.run, picks.types)


def corrections_between(before: Picks, after: Picks, *, types: set[str]) -> Corrections:
    """The decisions of somebody who edited the picks of these types: missing picks are rejected, new ones added.

    A pick that was moved is both.
    """
    decisions = []
    for index, kind in enumerate(before.types):
        if kind.name not in types:
            continue
        old, new = before.of_type(index), after.of_type(index)
        gone, fresh = (np.isinf(cKDTree(a).query(b, distance_upper_bound=_SAME_ANGSTROM)[0])
                       for a, b in ((new, old), (old, new)))  # fmt: skip
        decisions += [Decision(xyz_angstrom=(x, y, z), was=kind.name, now=None) for x, y, z in old[gone].tolist()]
        decisions += [Decision(xyz_angstrom=(x, y, z), was=None, now=kind.name) for x, y, z in new[fresh].tolist()]
    return Corrections(run=before.run, decisions=tuple(decisions))


def _at(
    picks: Picks,
    among: Bool[NDArray[np.bool_], " n"] | None,
    type_index: int,
    place: Float[NDArray[np.float64], " 3"],
    reach_angstrom: float,
) -> int | None:
    """The nearest pick of the type, if it is within reach."""
    chosen = picks.type_index == type_index
    mine = np.flatnonzero(chosen if among is None else chosen & among)
    if not len(mine):
        return None
    away = np.linalg.norm(picks.xyz_angstrom[mine] - place, axis=1)
    return int(mine[away.argmin()]) if away.min() <= reach_angstrom else None
