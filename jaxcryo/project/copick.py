"""A copick project: its tomograms and picks on this machine's disks, and writing picks into it.

If the project is of the CryoET Data Portal, only its overlay is handled here; `portal.py` has the rest.

Files are read and written as the `copick` package does (its layout and JSON; the package itself wants an old zarr).
The overlay goes before the static part, and only the overlay is written to.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcryo.domain import ParticleType, Picks, Run
from jaxcryo.errors import InputError
from jaxcryo.files import read_json, write_text
from jaxcryo.picks.copick_json import copick_texts, read_picks_files
from jaxcryo.picks.formats import check_names

OWN_USER, OWN_SESSION = "jaxcryo", "0"
_EXPECTED = "expected the JSON file of a copick project of type 'filesystem' or 'cryoet_data_portal'"
_SPACING = re.compile(r"VoxelSpacing(\d{1,6}(?:\.\d{1,6})?)")
_MAX_BYTES = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class CopickProject:
    """The folders of a project, overlay first."""

    path: pathlib.Path
    overlay: pathlib.Path
    static: pathlib.Path | None
    datasets: tuple[int, ...] = ()
    """Datasets of the CryoET Data Portal, in place of a static part."""

    @property
    def roots(self) -> tuple[pathlib.Path, ...]:
        """Where things are looked for; the first folder that has them counts."""
        return (self.overlay,) if self.static is None else (self.overlay, self.static)

    def folders(self, *place: str) -> list[pathlib.Path]:
        """The existing folders of that place below `ExperimentRuns`."""
        return [f for f in (r.joinpath("ExperimentRuns", *place) for r in self.roots) if f.is_dir()]

    def run_names(self) -> list[str]:
        """The project's runs, sorted."""
        return sorted({f.name for root in self.folders() for f in _inside(root) if f.is_dir()})


def open_project(path: str | pathlib.Path) -> CopickProject:
    """The project that a configuration file describes.

    Raises:
        InputError: the file cannot be used, or the project is not on this machine's disks.
    """
    path = pathlib.Path(path)
    content = read_json(path, _EXPECTED, limit=_MAX_BYTES)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no object; {_EXPECTED}")
    kind = content.get("config_type", "filesystem")
    if kind not in ("filesystem", "cryoet_data_portal"):
        raise InputError(f"{path}: is of type {str(kind)[:80]!r}; {_EXPECTED}: copy its data to a disk first")
    overlay = _root(path, "overlay_root", content.get("overlay_root"))
    if overlay is None:
        raise InputError(f"{path}: has no 'overlay_root'; {_EXPECTED}")
    if kind == "cryoet_data_portal":
        datasets = content.get("dataset_ids")
        if not isinstance(datasets, list) or not datasets or not all(type(n) is int and n > 0 for n in datasets):
            raise InputError(f"{path}: its 'dataset_ids' are {str(datasets)[:80]}; expected numbers of datasets")
        return CopickProject(path=path, overlay=overlay, static=None, datasets=tuple(datasets))
    static = _root(path, "static_root", content.get("static_root"))
    return CopickProject(path=path, overlay=overlay, static=None if static == overlay else static)


def project_runs(
    project: CopickProject,
    *,
    names: Sequence[str] | None = None,
    tomogram_type: str = "denoised",
    voxel_spacing_folder: str | None = None,
    near_angstrom: float | None = None,
) -> list[Run]:
    """The runs of a project that have the tomogram, or those named, in the order of their names.

    Among several voxel spacings, that of `voxel_spacing_folder` is taken (`VoxelSpacing10.000`, or just the number),
    else the one nearest to `near_angstrom`.

    Raises:
        InputError: there is no such run or tomogram, or it is not clear which one is meant.
    """
    available = project.run_names()
    if not available:
        raise InputError(f"{project.path}: has no runs in {' and '.join(f'{r}/ExperimentRuns' for r in project.roots)}")
    unknown = [n for n in names or () if n not in available]
    if unknown:
        raise InputError(f"{project.path}: has no run {', '.join(unknown)}; its runs are {_listed(available)}")
    check_names([tomogram_type], "tomogram type", "--tomogram-type")
    wanted = None if voxel_spacing_folder is None else _spacing(voxel_spacing_folder)
    runs, without = [], []
    for name in available if names is None else sorted(set(names)):
        check_names([name], "run", str(project.path))
        there = _tomograms(project, name, tomogram_type)
        fitting = [s for s in there if wanted is None or abs(s - wanted) < 5e-4]
        if not fitting:
            without.append(name)
            continue
        if len(fitting) > 1 and near_angstrom is None:
            spacings = ", ".join(there[s].parent.name for s in sorted(fitting))
            raise InputError(
                f"{project.path}: {name} has {tomogram_type}.zarr at several spacings; choose one with "
                f"--voxel-spacing-folder: {spacings}"
            )
        best = min(fitting, key=lambda s: (abs(s - (near_angstrom or 0.0)), s))
        runs.append(Run(name=name, volume_path=there[best]))
    if without and (names is not None or not runs):
        place = f"{voxel_spacing_folder or 'VoxelSpacing*'}/{tomogram_type}.zarr"
        every = sorted(
            {f"{t.parent.name}/{t.name}" for n in without for f in project.folders(n) for t in f.glob("V*/*.zarr")}
        )
        raise InputError(
            f"{project.path}: {_listed(without)} has no {place}; there is {_listed(every) or 'no tomogram'}: choose "
            "with --tomogram-type and --voxel-spacing-folder"
        )
    return runs


def project_picks(
    project: CopickProject,
    run: str,
    types: tuple[ParticleType, ...],
    *,
    user: str | None = None,
    session: str | None = None,
) -> Picks:
    """The picks of a run by a user and in a session; without a user, by anyone except this program.

    Raises:
        InputError: there are none of these types, several files are of one type, or a file cannot be used.
    """
    check_names([run], "run", str(project.path))
    found = _pick_files(project, run)
    chosen = _chosen(found, user, session)
    files: dict[int, pathlib.Path] = {}
    for index, type_ in enumerate(types):
        mine = sorted(key for key in chosen if key[2] == type_.name)
        if len(mine) > 1:
            listed = ", ".join(f"{u} in {s}" for u, s, _ in mine)
            raise InputError(
                f"{project.path}: {run} has several picks of {type_.name}, by {listed}; choose with --picks-user and "
                "--picks-session"
            )
        if mine:
            files[index] = chosen[mine[0]]
    if not files:
        listed = _listed(sorted({f"{o} by {u} in {s}" for u, s, o in found})) or "nothing"
        raise InputError(
            f"{project.path}: {run} has no picks of {', '.join(t.name for t in types)}"
            f"{'' if user is None else f' by {user}'}{'' if session is None else f' in {session}'}; it has {listed}"
        )
    return read_picks_files(files, run, types)


def has_picks(
    project: CopickProject, run: str, types: Iterable[ParticleType], *, user: str | None, session: str | None
) -> bool:
    """Whether a run has such picks of any of the types."""
    names = {t.name for t in types}
    return any(key[2] in names for key in _chosen(_pick_files(project, run), user, session))


def own_files(project: CopickProject, runs: Iterable[str]) -> list[pathlib.Path]:
    """The files of this program's picks in the overlay."""
    folders = [project.overlay / "ExperimentRuns" / run / "Picks" for run in runs]
    return [f for folder in folders for f in sorted(folder.glob(f"{OWN_USER}_{OWN_SESSION}_*.json"))]


def check_no_own_files(project: CopickProject, runs: Iterable[str]) -> None:
    """Raises InputError if runs already have picks by this program in the overlay."""
    there = own_files(project, runs)
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}{more} already exists; pass --force to replace it in the project")


def write_project_picks(project: CopickProject, found: Mapping[str, Picks], *, force: bool) -> list[pathlib.Path]:
    """Writes picks with their scores into the overlay, as user jaxcryo in session 0; returns the files.

    Raises:
        InputError: there are others by this program and no `force`, or a file cannot be written.
    """
    texts: dict[pathlib.Path, str] = {}
    for picks in found.values():
        texts |= copick_texts(picks, project.overlay, user_id=OWN_USER, session_id=OWN_SESSION)
    for file, text in texts.items():
        if not force and file.exists() and not _holds(file, text):
            raise InputError(
                f"{file} already exists, from another inference; pass --force to replace it in the project"
            )
    for file, text in texts.items():
        write_text(file, text)
    return list(texts)


def _pick_files(project: CopickProject, run: str) -> dict[tuple[str, str, str], pathlib.Path]:
    """The files of picks of a run by user, session and object."""
    found: dict[tuple[str, str, str], pathlib.Path] = {}
    for folder in project.folders(run, "Picks"):
        for file in _inside(folder):
            parts = file.stem.split("_")
            if file.suffix == ".json" and len(parts) == 3:
                found.setdefault((parts[0], parts[1], parts[2]), file)
    return found


def _chosen(
    found: Mapping[tuple[str, str, str], pathlib.Path], user: str | None, session: str | None
) -> dict[tuple[str, str, str], pathlib.Path]:
    return {
        key: file
        for key, file in found.items()
        if (key[0] != OWN_USER if user is None else key[0] == user) and session in (None, key[1])
    }


def _holds(file: pathlib.Path, text: str) -> bool:
    try:
        return file.read_bytes() == text.encode()
    except OSError:
        return False


def _tomograms(project: CopickProject, run: str, tomogram_type: str) -> dict[float, pathlib.Path]:
    """The tomograms of a type by their spacing."""
    found: dict[float, pathlib.Path] = {}
    for folder in project.folders(run):
        for spacing in _inside(folder):
            match = _SPACING.fullmatch(spacing.name)
            if match and (spacing / f"{tomogram_type}.zarr").is_dir():
                found.setdefault(float(match[1]), spacing / f"{tomogram_type}.zarr")
    return found


def _spacing(text: str) -> float:
    match = _SPACING.fullmatch(text if text.startswith("VoxelSpacing") else f"VoxelSpacing{text}")
    if match is None:
        raise InputError(f"--voxel-spacing-folder is {text!r}; expected one such as VoxelSpacing10.000")
    return float(match[1])


def _inside(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(f for f in folder.iterdir() if not f.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); make it readable") from error


def _root(path: pathlib.Path, key: str, value: Any) -> pathlib.Path | None:
    """A local folder from what copick calls a root: local:///…, file:///…, or a plain path."""
    if value is None:
        return None
    expected = f"expected an absolute path on this machine, as local:///data/project (in {key!r})"
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"{path}: {str(value)[:80]!r} is not a valid root; {expected}")
    scheme, separator, rest = value.partition("://")
    if not separator:
        rest = value
    elif scheme not in ("local", "file"):
        raise InputError(
            f"{path}: its {key!r} is {value[:200]!r}; only local:// and file:// are read, not {scheme[:20]}://: copy "
            "or mount the data first"
        )
    folder = pathlib.Path(urllib.parse.unquote(rest) if scheme == "file" and separator else rest)
    if not folder.is_absolute():
        raise InputError(f"{path}: its {key!r} is {value[:200]!r}; {expected}")
    return folder


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
