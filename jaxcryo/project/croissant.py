"""Croissant manifests that copick writes: a project's runs, tomograms and picks, wherever they lie.

A manifest is JSON-LD (`metadata.json`); beside it lie tables, of which `runs.csv`, `tomograms.csv` and `picks.csv` are
read. Places in them are addresses, or paths below the manifest's `copick:baseUrl`. From there on a manifest is a
listing like that of the CryoET Data Portal, whose data it often names.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
import re
import urllib.parse
from collections.abc import Sequence

from jaxcryo.errors import InputError
from jaxcryo.files import read_text
from jaxcryo.picks.formats.base import check_names
from jaxcryo.picks.formats.portal import plain_name
from jaxcryo.project.portal import Portal, PortalPoints, PortalTomogram
from jaxcryo.stores.address import Address, Location, location
from jaxcryo.stores.objects import read_object

_EXPECTED = "expected the metadata.json of a Croissant manifest that copick wrote"
_SPACING = re.compile(r"VoxelSpacing(\d{1,6}(?:\.\d{1,6})?)")
_WITH_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_manifest(place: str) -> bool:
    """Whether a place looks like a manifest's: a JSON file."""
    return place.lower().endswith(".json")


def open_manifest(place: str) -> Portal:
    """The listing of a manifest, by its path or address.

    Raises:
        InputError: it or one of its tables cannot be read, or is not what copick writes.
    """
    manifest = location(place)
    if not isinstance(manifest, Address):
        manifest = manifest.absolute()  # its project is the folder above its own
    try:
        content = json.loads(_text(manifest))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{manifest}: is not JSON ({error}); {_EXPECTED}") from error
    if not isinstance(content, dict) or not isinstance(content.get("recordSet"), list):
        raise InputError(f"{manifest}: has no 'recordSet'; {_EXPECTED}")
    base = content.get("copick:baseUrl") or str(manifest.parent.parent)
    if not isinstance(base, str):
        raise InputError(f"{manifest}: its 'copick:baseUrl' is {str(base)[:80]}; expected an address")

    def rows(name: str, columns: Sequence[str]) -> list[dict[str, str]]:
        return _table(manifest.parent / f"{name}.csv", columns)

    runs = [row["name"] for row in rows("runs", ["name"])]
    check_names(runs, "run", str(manifest))
    return Portal(
        title=str(manifest),
        choice="--picks-user and --picks-session",
        runs=tuple(sorted(set(runs))),
        tomograms=tuple(
            PortalTomogram(
                run=row["run"],
                kind=plain_name(row["tomo_type"]),
                spacing_angstrom=_number(row["voxel_size"], manifest),
                address=_resolved(base, row["url"]),
                alignment=None,
            )
            for row in rows("tomograms", ["run", "voxel_size", "tomo_type", "url"])
        ),
        points=tuple(
            PortalPoints(
                run=row["run"],
                particle=row["object_name"],
                address=_resolved(base, row["url"]),
                spacing_angstrom=_spacing_of_points(row, manifest),
                shape="OrientedPoint",
                is_truth=True,
                annotation=number,
                deposition=None,
                method=f"{row['user_id']} in {row['session_id']}",
                alignment=None,
                user=row["user_id"],
                session=row["session_id"],
            )
            for number, row in enumerate(rows("picks", ["run", "user_id", "session_id", "object_name", "url"]))
        ),
    )


def _table(place: Location, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table; raises InputError where it lacks a column, or a row a value in one."""
    reader = csv.DictReader(io.StringIO(_text(place), newline=""))
    try:
        lacking = [c for c in columns if c not in (reader.fieldnames or ())]
        if lacking:
            raise InputError(f"{place}: has no column {', '.join(lacking)}; {_EXPECTED}")
        rows = []
        for number, row in enumerate(reader, 2):
            empty = [c for c in columns if not row[c]]
            if empty:
                raise InputError(f"{place}: line {number} has no {', '.join(empty)}; {_EXPECTED}")
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{place}: is not CSV ({error}); {_EXPECTED}") from error
    return rows


def _text(place: Location) -> str:
    if isinstance(place, Address):
        return read_object(place).decode("utf-8-sig", "replace")
    return read_text(place, _EXPECTED)


def _resolved(base: str, url: str) -> Location:
    """Where something lies whose place is given absolutely or below the base."""
    whole = url if _WITH_SCHEME.match(url) or url.startswith("/") else f"{base.rstrip('/')}/{url}"
    if whole.startswith("file://"):
        return pathlib.Path(urllib.parse.unquote(whole.removeprefix("file://")))
    return location(whole)


def _number(text: str, manifest: Location) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{manifest}: a voxel size is {text[:40]!r}; expected a number of ångströms above 0")
    return number


def _spacing_of_points(row: dict[str, str], manifest: Location) -> float:
    """Of the voxels that points are counted in; NaN where nothing tells it, as in files that have ångströms."""
    if row.get("voxel_size"):
        return _number(row["voxel_size"], manifest)
    named = _SPACING.search(row["url"])
    return math.nan if named is None else float(named[1])
