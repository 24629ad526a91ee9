"""`jaxcryo picks apply`: picks as a person corrected them, on the page or in napari."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from jaxcryo.cli.command import Command, Switch, shown
from jaxcryo.cli.options import GeometryOptions
from jaxcryo.errors import InputError

if TYPE_CHECKING:
    from jaxcryo.domain import Picks
    from jaxcryo.picks.corrections import Corrections
    from jaxcryo.picks.folder import PicksFolder
    from jaxcryo.picks.formats import Geometries

_FEW = 3
"""From this many points on, some should still be where they were picked: nobody moves them all by hand."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplyOptions:
    """Apply corrections to the picks of an inference, and write them in every format that its folder has."""

    picks: Annotated[Positional[pathlib.Path], shown("PICKS")]
    """folder of an inference"""
    corrections: Annotated[Positional[tuple[str, ...]], shown("FILE ...")]
    """corrections saved from pages, or points saved from napari"""
    out: Annotated[pathlib.Path | None, shown("OUT", default="PICKS-corrected")] = None
    """folder to write"""
    run: Annotated[str | None, shown("NAME", default="the run that the file names")] = None
    """run that the napari points belong to"""
    data: Annotated[str | None, shown("DIR", default="the tomograms that were picked")] = None
    """tomograms, to read voxel spacings and sizes from"""
    voxel_spacing: Annotated[float | None, shown("ANGSTROM")] = None
    """voxel spacing in Å (Dynamo and napari)"""
    force: Switch = False
    """replace existing files"""
    geometry: GeometryOptions = GeometryOptions()


APPLY = Command(
    name="picks apply",
    summary="apply corrections from the page or napari",
    options=ApplyOptions,
    action="jaxcryo.cli.apply:apply",
    examples={
        "picks apply picks/ TS_1-corrections.json TS_2-corrections.json": (
            "writes picks-corrected/ with copick JSON, Kaggle's table and every other format that picks/ has"
        ),
        "picks apply picks/ ribosome.csv --run TS_1 --out corrected/": "ribosome points edited in napari",
    },
)


def apply(options: ApplyOptions) -> None:
    """Writes the corrected picks, and beside them the decisions, from which a training can learn."""
    import numpy as np

    from jaxcryo.cli.geometry import geometries_of, say
    from jaxcryo.domain import concatenate_picks
    from jaxcryo.picks.candidates import read_candidates
    from jaxcryo.picks.copick_json import read_copick_folder
    from jaxcryo.picks.corrections import SUFFIX, corrected, write_corrections
    from jaxcryo.picks.folder import PicksFolder, Settings
    from jaxcryo.picks.formats import above_thresholds, check_writable, losses, write_picks
    from jaxcryo.project.dataset import find_runs
    from jaxcryo.serialize import types_to_json

    folder = PicksFolder(path=options.picks)
    types = folder.types()
    found = read_copick_folder(options.picks, types, note=say)
    runs = folder.origins() if options.data is None else find_runs(options.data)
    geometries = geometries_of(options.geometry, options.voxel_spacing, runs, say)
    decided = _decided(options, found, geometries)
    candidates = read_candidates(options.picks, types, decided)
    changed = dict(found)
    for run, corrections in decided.items():
        mine, own = found[run], candidates.get(run)
        in_force = _in_force(folder, corrections)
        moved = [i for i, t in enumerate(types) if corrections.thresholds.get(t.name) != in_force.get(t.name)]
        if own is not None and moved:  # other types keep what was decided of them beyond the thresholds
            above = above_thresholds(own, corrections.thresholds)
            parts = [mine.select(~np.isin(mine.type_index, moved)), above.select(np.isin(above.type_index, moved))]
            mine = concatenate_picks([p for p in parts if len(p)], run, types)
        changed[run] = corrected(mine, corrections, candidates=own, note=say)
    out = options.out or options.picks.with_name(f"{options.picks.resolve().name}-corrected")
    if out.resolve() == options.picks.resolve():
        raise InputError(f"{out}: is the folder of the original picks; choose another --out, so that both are kept")
    places = {format_: out / (format_.place or format_.name) for format_ in folder.formats()}
    for format_, place in places.items():  # before the first of them is written
        check_writable(format_, place, changed, geometries)
    for format_, place in places.items():
        written = write_picks(changed, place, format_, geometries, force=options.force)
        lost = losses(changed, format_)
        files = written[0] if len(written) == 1 else f"{len(written)} files"
        print(f"{format_.title}: {files}{''.join(f'; not {phrase}' for phrase in lost)}")
    PicksFolder(path=out).write_settings(Settings(particles=tuple(types_to_json(types))))
    for run, corrections in decided.items():
        write_corrections(out / "corrections" / f"{run}{SUFFIX}", corrections)
        print(_said(found[run], changed[run], corrections))
    print(f"in {out}")


def _in_force(folder: PicksFolder, corrections: Corrections) -> dict[str, float]:
    """The thresholds of the folder's picks, for those types that the corrections have thresholds for."""
    from jaxcryo.cli.deciding import read_decision

    settings, decision = folder.settings(), read_decision(folder.path)
    known = ({} if settings is None else settings.thresholds) | ({} if decision is None else decision[0])
    return {name: known.get(name, value) for name, value in corrections.thresholds.items()}


def _decided(options: ApplyOptions, found: dict[str, Picks], geometries: Geometries) -> dict[str, Corrections]:
    from jaxcryo.picks.corrections import read_corrections

    decided: dict[str, Corrections] = {}
    for name in options.corrections:
        path = pathlib.Path(name)
        if path.suffix.lower() == ".json":
            own = read_corrections(path)
        else:
            own = _edited(path, options.run, found, geometries)
        if own.run not in found:
            raise InputError(f"{path}: is about {own.run}; {options.picks} has picks of {', '.join(found)}")
        if own.run in decided:
            before = decided[own.run]
            if path.suffix.lower() == ".json" or before.thresholds:
                raise InputError(f"{path}: {own.run} has corrections in another file too; expected one file per run")
            own = dataclasses.replace(own, decisions=before.decisions + own.decisions)
        decided[own.run] = own
    return decided


def _edited(path: pathlib.Path, run: str | None, found: dict[str, Picks], geometries: Geometries) -> Corrections:
    """The changes in points saved from napari; a file named after a type concerns that type alone."""
    from jaxcryo.cli.geometry import say
    from jaxcryo.picks.corrections import corrections_between
    from jaxcryo.picks.formats import format_of, read_picks
    from jaxcryo.picks.formats.tables import columns_of

    types = next(iter(found.values())).types
    names = {t.name for t in types}
    said = "run" in columns_of(path)
    if run is None and not said:
        if path.stem not in found and len(found) > 1:
            raise InputError(f"{path}: does not name its run; pass --run with one of {', '.join(found)}")
        run = path.stem if path.stem in found else next(iter(found))
    if run is not None:
        by_run = {**geometries.by_run, path.stem: geometries.of(run)}
        geometries = dataclasses.replace(geometries, by_run=by_run)
    read = read_picks(path, types, geometries, format_=format_of("napari"), note=say)
    own = next(iter(read.values()))
    own = own if run is None else dataclasses.replace(own, run=run)
    if own.run not in found:
        raise InputError(f"{path}: is about {own.run}; there are picks of {', '.join(found)}")
    about = {path.stem} if path.stem in names else names
    corrections = corrections_between(found[own.run], own, types=about)
    before, counts = found[own.run].counts(), corrections.counts()
    if counts["rejected"] == sum(before[name] for name in about) >= _FEW and counts["added"] >= _FEW:
        raise InputError(
            f"{path}: none of its {counts['added']} points is where a pick of {own.run} is; expected most of them in "
            "their places: the voxel spacing (--voxel-spacing) or the run may be another"
        )
    return corrections


def _said(before: Picks, after: Picks, corrections: Corrections) -> str:
    decided = ", ".join(f"{n} {kind}" for kind, n in corrections.counts().items() if n) or "nothing decided"
    regions = len(corrections.complete)
    complete = f", {regions} complete region{'' if regions == 1 else 's'}" if regions else ""
    old, new = before.counts(), after.counts()
    changes = ", ".join(f"{name} {old[name]} → {n}" for name, n in new.items() if n != old[name])
    return f"{corrections.run}: {decided}{complete}; {changes or 'the number of picks of each type is unchanged'}"
