"""Known picks of a dataset, with or without its tomograms."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from jaxcryo.domain import ParticleType, Picks
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.stores.address import Address, location

_PLACES = ("train/overlay", "test-truth", "overlay", ".")


def read_truth(
    root: str | pathlib.Path, types: tuple[ParticleType, ...], runs: Sequence[str] | None = None
) -> dict[str, Picks]:
    """The picks of each run below a dataset's folder: of its training runs, and of test runs if they are known.

    Raises:
        InputError: there are none, a run of `runs` has none, or they cannot be used.
    """
    folder = location(root)
    if isinstance(folder, Address):
        raise InputError(f"{folder}: picks are read from this machine's disks only; pass a folder that has them")
    places = [folder / p for p in _PLACES if any((folder / p / "ExperimentRuns").glob("*/Picks"))]
    if not places:
        raise InputError(
            f"{root}: has no known picks; expected a dataset with train/overlay/ExperimentRuns/<run>/Picks, or a "
            "folder that holds ExperimentRuns"
        )
    found: dict[str, Picks] = {}
    for place in reversed(places):
        found |= read_copick_folder(place, types)
    if runs is None:
        return dict(sorted(found.items()))
    unknown = [r for r in runs if r not in found]
    if unknown:
        raise InputError(f"{root}: no known picks of {', '.join(unknown)}; it has those of {', '.join(sorted(found))}")
    return {r: found[r] for r in sorted(set(runs))}
