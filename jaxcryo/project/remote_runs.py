"""The runs at an address: a tomogram, or a folder of them in a bucket."""

from __future__ import annotations

from collections.abc import Sequence

from jaxcryo.domain import Run
from jaxcryo.errors import InputError
from jaxcryo.picks.formats.base import check_names
from jaxcryo.picks.geometry import Note
from jaxcryo.stores.address import Address
from jaxcryo.stores.objects import Objects, RefusedError
from jaxcryo.tomogram.remote import METADATA_FILES
from jaxcryo.tomogram.volumes import tomogram_name

_MOST_NAMED = 20
_EXPECTED = "expected an OME-Zarr, or in a bucket a folder of some (.zarr)"


def remote_runs(root: Address, names: Sequence[str] | None, note: Note) -> list[Run]:
    """The runs in the order of their names, or those of `names`; `note` is told what else lies beside them.

    Raises:
        InputError: there are none, `names` has others, a name cannot be a folder's, the server cannot be reached, or it
            is a web server and the address is not a tomogram's.
    """
    objects = Objects(root)
    try:
        inside = objects.inside()
    except RefusedError:
        found = {tomogram_name(root): root} if _is_zarr(objects) else {}
        if not found:
            raise InputError(
                f"{root}: is not an OME-Zarr (it has none of {', '.join(METADATA_FILES)}), and its server does not "
                "list folders: pass the address of a single tomogram, which usually ends in .zarr"
            ) from None
    else:
        if set(inside.objects) & set(METADATA_FILES):
            found = {tomogram_name(root): root}
        else:
            found = _in_folder(root, inside.folders, note)
        if not found:
            there = ", ".join([*(f"{f}/" for f in inside.folders), *inside.objects][:_MOST_NAMED])
            raise InputError(f"{root}: holds no tomogram; {_EXPECTED}; there is {there or 'nothing'}")
    unknown = [n for n in names or () if n not in found]
    if unknown:
        raise InputError(f"{root}: has no run {', '.join(unknown)}; its runs are {', '.join(sorted(found))}")
    chosen = sorted(found if names is None else set(names))
    check_names(chosen, "run", str(root))
    return [Run(name=n, volume_path=found[n]) for n in chosen]


def _in_folder(root: Address, folders: Sequence[str], note: Note) -> dict[str, Address]:
    found: dict[str, Address] = {}
    passed_over = []
    for folder in folders:
        place = root / folder
        name = tomogram_name(place)
        if not folder.lower().endswith(".zarr"):
            passed_over.append(f"{folder}/")
        elif name in found:
            raise InputError(f"{root}: {found[name].name} and {folder} would both be run {name}: rename one")
        else:
            found[name] = place
    if passed_over and found:
        note(f"{root}: skipped {', '.join(passed_over[:_MOST_NAMED])}, which do not end in .zarr")
    return found


def _is_zarr(objects: Objects) -> bool:
    for name in METADATA_FILES:
        try:
            if objects.get(name) is not None:
                return True
        except RefusedError:  # as some servers answer for what is not there
            continue
    return False
