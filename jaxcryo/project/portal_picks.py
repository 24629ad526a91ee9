"""Picks of the CryoET Data Portal: which annotations are meant, and the points in their files.

Positions on the portal are voxels of the annotation's voxel spacing.
"""

from __future__ import annotations

import concurrent.futures
import json
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.files import read_text
from jaxcryo.picks.copick_json import picks_of_json
from jaxcryo.picks.formats.base import Rows, picks_by_run
from jaxcryo.picks.formats.portal import Points, plain_name, points_of, portal_type
from jaxcryo.picks.geometry import Note, ignore
from jaxcryo.picks.run_names import listed
from jaxcryo.project.copick import OWN_USER
from jaxcryo.project.portal import POINT_SHAPES, Portal, PortalPoints
from jaxcryo.stores.address import Address, Location
from jaxcryo.stores.objects import read_object

_EXPECTED = "expected points of the CryoET Data Portal (.ndjson) or copick's JSON"
_AT_ONCE = 16


def portal_picks(
    portal: Portal,
    runs: Sequence[Run | str],
    types: tuple[ParticleType, ...],
    *,
    deposition: int | None = None,
    user: str | None = None,
    session: str | None = None,
    note: Note = ignore,
) -> dict[str, Picks]:
    """The picks of these types in the runs that have any: those of a deposition, or of a user and a session (else of
    anyone but this program), else the ground truth, else all there are. Notes tell of picks that are not ground truth,
    and of annotations of other particles.

    For a run given with its tomogram, only picks in the tomogram's alignment count.

    Raises:
        InputError: a run has several annotations of a particle, its picks are in several alignments, or a file cannot
            be fetched.
    """
    wanted = {r if isinstance(r, str) else r.name: None if isinstance(r, str) else r.volume_path for r in runs}
    alignment_of: dict[Location | None, int | None] = {t.address: t.alignment for t in portal.tomograms}
    points_of_run: defaultdict[str, list[PortalPoints]] = defaultdict(list)
    for points in portal.points:
        by_user = points.user != OWN_USER if user is None else points.user == user
        if by_user and session in (None, points.session) and deposition in (None, points.deposition):
            points_of_run[points.run].append(points)
    chosen: list[tuple[PortalPoints, int]] = []
    others: dict[str, None] = {}
    for run, tomogram in wanted.items():
        own: dict[int, list[PortalPoints]] = {}
        for points in points_of_run[run]:
            index = portal_type(points.particle, types)
            if index is None:
                others[plain_name(points.particle)] = None
                continue
            alignment = alignment_of.get(tomogram)
            if alignment is None or points.alignment in (None, alignment):
                own.setdefault(index, []).append(points)
        chosen += [(_one(portal, run, found), index) for index, found in sorted(own.items())]
        _check_alignment(portal, run, [p for found in own.values() for p in _meant(found)])
    doubtful = [p for p, _ in chosen if not p.is_truth]
    if doubtful and deposition is None:
        named = sorted({f"{plain_name(p.particle)} ({p.method}, deposition {p.deposition})" for p in doubtful})
        note(f"{portal.title}: no ground truth there; used instead: {listed(named)}")
    if others:
        note(f"{portal.title}: annotations of other particles were left out: {listed(list(others))}")
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        texts = list(pool.map(lambda c: _text(c[0].address), chosen))
    tables = []
    for (points, index), text in zip(chosen, texts, strict=True):
        xyz_angstrom, orientation = _positions(points, text, note)
        tables.append(
            Rows(
                where=str(points.address),
                runs=[points.run] * len(xyz_angstrom),
                xyz_angstrom=xyz_angstrom,
                type_index=np.full(len(xyz_angstrom), index, np.int64),
                orientation=orientation if points.shape == "OrientedPoint" else None,
            )
        )
    return dict(sorted(picks_by_run(types, tables, note).items()))


def _text(place: Location) -> str:
    if isinstance(place, Address):
        return read_object(place).decode("utf-8", "replace")
    return read_text(place, _EXPECTED)


def _positions(points: PortalPoints, text: str, note: Note) -> Points:
    """In ångströms: of the portal's lines in voxels, or of copick's JSON."""
    where = str(points.address)
    if points.address.name.lower().endswith(".json"):
        try:
            found = picks_of_json(json.loads(text), where, None, note=note)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not JSON ({error}); {_EXPECTED}") from error
        return found.xyz_angstrom, found.orientation
    voxels, orientation = points_of(text, where, note)
    if not np.isfinite(points.spacing_angstrom):
        raise InputError(
            f"{where}: nothing tells the voxel size that its points are counted in; write the manifest anew"
        )
    return voxels * points.spacing_angstrom, orientation


def _one(portal: Portal, run: str, found: Sequence[PortalPoints]) -> PortalPoints:
    """The one annotation, in the shape that holds most."""
    truth = _meant(found)
    if len({p.annotation for p in truth}) > 1:
        several = listed(
            sorted({p.method if p.deposition is None else f"deposition {p.deposition} ({p.method})" for p in truth})
        )
        raise InputError(
            f"{portal.title}: {run} has several annotations of {plain_name(truth[0].particle)}, of {several}; choose "
            f"one with {portal.choice}"
        )
    return min(truth, key=lambda p: (POINT_SHAPES.index(p.shape), str(p.address)))


def _meant(found: Sequence[PortalPoints]) -> Sequence[PortalPoints]:
    return [p for p in found if p.is_truth] or found


def _check_alignment(portal: Portal, run: str, points: Sequence[PortalPoints]) -> None:
    """Raises InputError for picks in several alignments: no single tomogram shows them all."""
    by_alignment: defaultdict[int, set[str]] = defaultdict(set)
    for p in points:
        if p.alignment is not None:
            by_alignment[p.alignment].add(f"{plain_name(p.particle)} of deposition {p.deposition}")
    if len(by_alignment) > 1:
        several = "; ".join(f"alignment {a} has {listed(sorted(names))}" for a, names in sorted(by_alignment.items()))
        raise InputError(
            f"{portal.title}: the known picks of {run} are in several alignments of the tilt series, where the same "
            f"place has other coordinates: {several}; choose with --deposition, or fewer particles with --particles"
        )
