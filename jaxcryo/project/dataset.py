"""Finding the runs of a dataset: the challenge's layout, a copick root, or a folder of tomograms."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jaxcryo.domain import CENTER_OFFSET_VOXEL, ParticleType, Picks, Run, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picks.copick_json import read_copick_folder, read_picks_folder
from jaxcryo.picks.geometry import Note, ignore, note_places
from jaxcryo.project.remote_runs import remote_runs
from jaxcryo.stores.address import Address, Location, location
from jaxcryo.tomogram.mrc import SUFFIXES
from jaxcryo.tomogram.volumes import MRC_SUFFIXES, TILT_SERIES_SUFFIXES, is_tomogram, tomogram_name

Split = Literal["train", "test"]
_MOST_OUTSIDE = 0.05
"""The share of picks that may lie far outside; if there are more, the spacing is wrong."""
_VOLUME_SUFFIXES = (
    ".em",
    ".hdf",
    ".h5",
    ".hdf5",
    ".tif",
    ".tiff",
    ".nii",
    ".raw",
    ".vol",
    ".spi",
    ".dm3",
    ".dm4",
    ".n5",
)
_TRUTH_PLACES = ("train/overlay", "test-truth", "overlay", ".")
_MOST_NAMED = 8
_SPLITS: tuple[Split, ...] = ("train", "test")
_EXPECTED = (
    "expected train/ and test/ as the challenge has them, a folder with static/ExperimentRuns or ExperimentRuns, "
    f"tomograms (.zarr, {', '.join(SUFFIXES)}), or a single tomogram"
)


def find_runs(
    root: str | Location,
    *,
    split: Split | None = None,
    names: Sequence[str] | None = None,
    tomogram_type: str = "denoised",
    voxel_spacing_folder: str | None = None,
    note: Note = ignore,
) -> list[Run]:
    """The runs of a dataset in the order of their names as plain strings, which is the order of the folds.

    `root` is the challenge's folder (`train/`, `test/`), a folder with `static/ExperimentRuns` (picks in
    `overlay/ExperimentRuns`) or `ExperimentRuns` (picks beside the tomograms), a folder of tomograms, one tomogram, or
    an address as `remote_runs` takes it. `split` chooses a part of the challenge's folder and has no effect elsewhere;
    None takes both parts, and for a run in both the one in train, since the challenge's test folder repeats three
    training runs. `tomogram_type` and `voxel_spacing_folder` (such as `VoxelSpacing10.000`) choose among several
    reconstructions.
    `note` is told what else a folder of tomograms holds.

    Raises:
        InputError: nothing is there, `split` or a name of `names` does not exist, or several reconstructions fit.
    """
    root = location(root)
    if isinstance(root, Address):
        return remote_runs(root, names, note)
    if not root.exists():
        raise InputError(f"{root}: does not exist; {_EXPECTED}")
    parts = [root / s for s in _SPLITS if _run_folders(root / s)]
    if parts and split is not None:
        if root / split not in parts:
            raise InputError(f"{root}: has no runs in {split}/; it has {', '.join(p.name for p in parts)}")
        parts = [root / split]
    folders: dict[str, tuple[pathlib.Path, pathlib.Path]] = {}
    for part in reversed(parts or [root]):
        folders.update({f.name: (f, part) for f in _run_folders(part)})
    tomograms = {} if folders else _tomograms(root, note)
    available = sorted(folders or tomograms)
    if not available:
        raise InputError(f"{root}: holds no run; {_EXPECTED}")
    chosen = available if names is None else sorted(set(names))
    unknown = [n for n in chosen if n not in available]
    if unknown:
        raise InputError(f"{root}: has no run {', '.join(unknown)}; its runs are {', '.join(available)}")
    if tomograms:
        return [Run(name=n, volume_path=tomograms[n]) for n in chosen]
    return [
        Run(
            name=n,
            volume_path=_reconstruction(folders[n][0], tomogram_type, voxel_spacing_folder),
            picks_folder=_picks_folder(folders[n][1], n),
        )
        for n in chosen
    ]


def read_run_picks(run: Run, types: tuple[ParticleType, ...]) -> Picks:
    """The picks of a run; a type without a file has none.

    Raises:
        InputError: the run has no picks folder, or it holds no usable file of these types.
    """
    if run.picks_folder is None:
        raise InputError(
            f"{run.name}: has no picks; expected overlay/ExperimentRuns/{run.name}/Picks beside static/ "
            f"(the tomogram is {run.volume_path})"
        )
    return read_picks_folder(run.picks_folder, run.name, types)


def within_volume(picks: Picks, grid: VoxelGrid, *, note: Note = ignore) -> Picks:
    """The picks that belong to a volume. Those whose center is outside by less than a radius stay: the particle reaches
    in, and part of its target is drawn. A few farther ones are dropped. A note says so in both cases.

    Raises:
        InputError: many lie outside, the usual sign of a wrong voxel spacing.
    """
    if not len(picks):
        return picks
    zyx = grid.to_voxel(picks.xyz_angstrom)
    inside = grid.contains(zyx)
    radius = np.asarray([t.radius_angstrom for t in picks.types])[picks.type_index]
    low, high = -CENTER_OFFSET_VOXEL, np.asarray(grid.shape_zyx) - CENTER_OFFSET_VOXEL
    beyond = (np.maximum(np.maximum(low - zyx, zyx - high), 0) * grid.spacing_zyx_angstrom).max(axis=1)
    kept = beyond < radius
    if np.count_nonzero(~kept) > _MOST_OUTSIDE * len(picks):
        raise InputError(_outside(picks, grid, kept))
    if not inside.all():
        note(
            f"{picks.run}: {int((~inside).sum())} of {len(picks)} picks are outside the volume; "
            f"{int((kept & ~inside).sum())} reach into it and were kept, {int((~kept).sum())} were left out"
        )
    note_places(picks, np.multiply(grid.shape_zyx, grid.spacing_zyx_angstrom)[::-1].astype(np.float64), note)
    return picks.select(kept)


def _outside(picks: Picks, grid: VoxelGrid, kept: NDArray[np.bool_]) -> str:
    outside = np.flatnonzero(~kept)
    first = outside[0]
    particle = picks.types[picks.type_index[first]].name
    position = np.round(picks.xyz_angstrom[first], 1).tolist()
    extent = " × ".join(
        f"{n * s:.0f}" for n, s in zip(grid.shape_zyx[::-1], grid.spacing_zyx_angstrom[::-1], strict=True)
    )
    return (
        f"{picks.run}: {len(outside)} of {len(picks)} picks are outside the volume, the first is a {particle} at "
        f"{position} Å (x, y, z); the volume is {extent} Å at a voxel spacing of {grid.spacing_angstrom:g} Å. A wrong "
        "spacing is the usual cause: pass the true one with --voxel-spacing"
    )


def _run_folders(part: pathlib.Path) -> list[pathlib.Path]:
    for runs in (part / "static" / "ExperimentRuns", part / "ExperimentRuns"):
        if runs.is_dir():
            return [f for f in runs.iterdir() if f.is_dir() and not f.name.startswith(".")]
    return []


def _tomograms(root: pathlib.Path, note: Note) -> dict[str, pathlib.Path]:
    if is_tomogram(root):
        return {tomogram_name(root): root}
    found: dict[str, pathlib.Path] = {}
    passed_over: list[str] = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.name.startswith("."):
            continue
        # A broken link counts as a run, which fails and says why.
        lost = path.is_symlink() and not path.exists() and path.name.lower().endswith((".zarr", *MRC_SUFFIXES))
        if not (is_tomogram(path) or lost):
            passed_over.append(f"{path.name} ({_reason(path)})")
            continue
        name = tomogram_name(path)
        other = found.get(name)
        if other is None:
            found[name] = path
        elif _is_tilt_series(path) != _is_tilt_series(other):
            series, found[name] = (path, other) if _is_tilt_series(path) else (other, path)
            passed_over.append(f"{series.name} (the tilt series of {found[name].name})")
        else:
            raise InputError(f"{root}: {other.name} and {path.name} would both be run {name}: rename one")
    if passed_over and found:
        more = f" and {len(passed_over) - _MOST_NAMED} more" if len(passed_over) > _MOST_NAMED else ""
        note(f"{root}: skipped {', '.join(passed_over[:_MOST_NAMED])}{more}")
    return found


def _is_tilt_series(path: pathlib.Path) -> bool:
    return path.name.lower().endswith(TILT_SERIES_SUFFIXES)


def _reason(path: pathlib.Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which does not exist"
    if path.is_dir():
        return "a folder that is not a zarr"
    if path.suffix.lower() in _VOLUME_SUFFIXES:
        return "a format that is not read: convert it to MRC"
    return "no tomogram"


def _reconstruction(run: pathlib.Path, tomogram_type: str, voxel_spacing_folder: str | None) -> pathlib.Path:
    """The one tomogram of a run folder with this type and spacing folder."""
    every = sorted(t for t in run.glob("VoxelSpacing*/*.zarr") if t.is_dir() or t.is_symlink())
    fitting = [t for t in every if t.stem == tomogram_type and voxel_spacing_folder in (None, t.parent.name)]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(str(t.relative_to(run)) for t in every) or "none"
    wanted = f"{voxel_spacing_folder or 'VoxelSpacing*'}/{tomogram_type}.zarr"
    if not fitting:
        raise InputError(f"{run}: has no tomogram {wanted}; it has: {listed}")
    raise InputError(f"{run}: has several {wanted}; choose one with --voxel-spacing-folder: {listed}")


def _picks_folder(part: pathlib.Path, name: str) -> pathlib.Path | None:
    for root in (part / "overlay", part):
        folder = root / "ExperimentRuns" / name / "Picks"
        if folder.is_dir():
            return folder
    return None


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
    places = [folder / p for p in _TRUTH_PLACES if any((folder / p / "ExperimentRuns").glob("*/Picks"))]
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
