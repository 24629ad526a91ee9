"""STAR files of particles, as far as RELION 4 and 5 share them; parsed and formatted by the package starfile."""

from __future__ import annotations

import linecache
import pathlib
import reprlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from jaxcryo.errors import InputError
from jaxcryo.files import check_file
from jaxcryo.picks.formats.base import PicksByRun, Types, particle_of_file
from jaxcryo.picks.formats.names import check_words
from jaxcryo.picks.geometry import Frames, Note, TomogramFrame

TOMOGRAM = "rlnTomoName"
SCORE = "rlnAutopickFigureOfMerit"
CLASS = "rlnClassNumber"
PIXEL_SIZE = "rlnTomoTiltSeriesPixelSize"
_NAMES_BLOCK, _NAME = "jaxcryo_particle_types", "jaxcryoParticleType"
_ORIGIN = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
_SUBTOMOGRAM = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
_ANGLES = (*_SUBTOMOGRAM, "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
_DIGITS = "%.15g"
_EXPECTED = "expected a STAR file of particles"

Blocks = dict[str, Any]


def read_blocks(path: pathlib.Path, expected: str = _EXPECTED) -> Blocks:
    """The tables of a STAR file by name, as pandas frames.

    Raises:
        InputError: the file cannot be read or is not STAR.
    """
    # pandas takes half a second to import; commands that read no STAR file do without.
    import pandas
    import starfile

    check_file(path, expected)
    linecache.clearcache()  # starfile reads through it and does not notice that a file has changed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            blocks = starfile.read(path, always_dict=True, parse_as_string=[TOMOGRAM, _NAME])
        tables = {
            name: pandas.DataFrame([block]) if isinstance(block, dict) else block for name, block in blocks.items()
        }
    except Exception as error:  # the parser raises whatever its steps raise
        text = str(error).replace("\n", " ")[:200]
        raise InputError(
            f"{path}: is not a STAR file ({type(error).__name__}: {text}); {expected}: copy it again"
        ) from error
    finally:
        linecache.clearcache()
    if not tables:
        raise InputError(f"{path}: holds no table; {expected}")
    return tables


def particles_of(blocks: Blocks, path: pathlib.Path, coordinates: Sequence[str]) -> Any:
    """The table of particles: the one called so, or the only one with the columns.

    Raises:
        InputError: there is none, or it lacks columns.
    """
    needed = (TOMOGRAM, *coordinates)
    fitting = [b for b in blocks.values() if all(list(b.columns).count(c) == 1 for c in needed)]
    table = blocks.get("particles", fitting[0] if len(fitting) == 1 else None)
    if table is None or not any(table is f for f in fitting):
        present = ", ".join(map(str, (table if table is not None else next(iter(blocks.values()))).columns))
        raise InputError(
            f"{path}: its particles need the columns {', '.join(needed)}, once each; it has {present[:300]}"
        )
    return table


def column(table: Any, name: str, path: pathlib.Path) -> Float[NDArray[np.float64], "n"]:
    """Finite numbers of a column. Raises InputError with the row of what is none."""
    values = np.full(len(table), np.nan)
    for i, value in enumerate(table[name].tolist() if list(table.columns).count(name) == 1 else ["twice"]):
        try:
            values[i : i + 1] = float(value)
        except (TypeError, ValueError, OverflowError):
            values[i : i + 1] = np.nan
        if not (len(values) and np.isfinite(values[i])):
            raise InputError(
                f"{path}: {name} of particle {i + 1} is {str(value)[:40]!r}; expected a finite number, in one column"
            )
    return values


def columns(table: Any, names: Sequence[str], path: pathlib.Path) -> Float[NDArray[np.float64], "n k"]:
    """Several columns beside each other."""
    return np.stack([column(table, name, path) for name in names], axis=1)


def tomogram_names(table: Any, path: pathlib.Path) -> list[str]:
    """The run of each particle. Raises InputError where one is missing."""
    names = table[TOMOGRAM].tolist()
    missing = next((i for i, name in enumerate(names) if not isinstance(name, str) or not name), None)
    if missing is not None:
        raise InputError(f"{path}: particle {missing + 1} has no {TOMOGRAM}; complete or remove the line")
    return names


def origin_xyz_angstrom(table: Any, path: pathlib.Path) -> Float[NDArray[np.float64], "n 3"]:
    """What refinement moved the particles by: to be subtracted from their coordinates.

    The shift is given in the frame of the subtomogram's own orientation (3dem/relion 5.0.1,
    get_particle_poses/particles.py, `rlnOrigin_to_rlnCoordinate_row`).
    """
    if not all(name in table.columns for name in _ORIGIN):
        return np.zeros((len(table), 3))
    shift = columns(table, _ORIGIN, path)
    if len(table) and all(name in table.columns for name in _SUBTOMOGRAM):
        rotation = Rotation.from_euler("ZYZ", columns(table, _SUBTOMOGRAM, path), degrees=True)
        shift = rotation.inv().apply(shift)
    return shift


def note_orientations(table: Any, path: pathlib.Path, note: Note) -> None:
    """Says so where particles have orientations, which picks cannot keep."""
    given = [name for name in _ANGLES if name in table.columns]
    if given and np.any(columns(table, given, path)):
        note(f"{path}: orientations are not kept, picks have none")


def scores(table: Any, path: pathlib.Path) -> list[float] | list[None]:
    """The score of each particle where the table has them."""
    if SCORE not in table.columns:
        return [None] * len(table)
    return column(table, SCORE, path).tolist()


def type_indices(blocks: Blocks, table: Any, path: pathlib.Path, types: Types) -> list[int]:
    """The type of each particle: by the file's own list of classes, its name, or because there is only one.

    Raises:
        InputError: it is not clear, or not one of the types.
    """
    listed = blocks.get(_NAMES_BLOCK)
    if listed is None or CLASS not in table.columns:
        index = particle_of_file(path, types)
        if index is None:
            raise InputError(
                f"{path}: which particle it holds is not clear; name it <particle>.star with one of "
                f"{', '.join(t.name for t in types)}, or give --particles with one particle"
            )
        return [index] * len(table)
    if not {CLASS, _NAME} <= set(listed.columns):
        raise InputError(f"{path}: its list of particle types needs the columns {CLASS} and {_NAME}")
    index_of = {t.name: i for i, t in enumerate(types)}
    names = dict(zip(column(listed, CLASS, path).tolist(), listed[_NAME].tolist(), strict=True))
    indices = []
    for number in column(table, CLASS, path).tolist():
        name = names.get(number)
        if name not in index_of:
            is_what = "not in its list" if name is None else reprlib.repr(name)
            raise InputError(f"{path}: class {number:g} is {is_what}; the types are {', '.join(index_of)}")
        indices.append(index_of[name])
    return indices


def pixel_size_of(blocks: Blocks, path: pathlib.Path) -> float | None:
    """The unbinned pixel size that the file's optics groups give, where they do.

    Raises:
        InputError: they differ.
    """
    optics = blocks.get("optics")
    if optics is None or PIXEL_SIZE not in optics.columns or not len(optics):
        return None
    sizes = sorted(set(column(optics, PIXEL_SIZE, path).tolist()))
    if len(sizes) > 1:
        raise InputError(f"{path}: its optics groups have the pixel sizes {sizes} Å; expected one: split the file")
    return float(sizes[0])


def encode_particles(
    picks: PicksByRun,
    path: pathlib.Path,
    names: Sequence[str],
    coordinates: dict[str, Float[NDArray[np.float64], "n 3"]],
) -> dict[pathlib.Path, str]:
    """One file for all particles where `path` ends in `.star`, else a folder of `<particle>.star`.

    `coordinates` of each run belong to the columns `names`. There is no table of optics groups: RELION makes it from
    its tomograms where a file of picks has none (ParticleSet::read).
    """
    import pandas
    import starfile

    check_words(picks, "run", str(path))
    types = next(iter(picks.values())).types if picks else ()
    index = np.concatenate([np.zeros(0, np.int64), *(own.type_index for own in picks.values())])
    xyz = np.concatenate([np.zeros((0, 3)), *(coordinates[run] for run in picks)])
    table = {name: xyz[:, i] for i, name in enumerate(names)}
    # A tomogram called data_… at the start of a line would look like a new table, so names do not come first.
    table[TOMOGRAM] = np.asarray([run for run, own in picks.items() for _ in range(len(own))], dtype=object)
    if picks and all(own.score is not None or not len(own) for own in picks.values()):
        table[SCORE] = np.concatenate([np.zeros(0), *(own.score for own in picks.values() if own.score is not None)])

    def text(blocks: Blocks) -> str:
        return str(starfile.to_string(blocks, float_format=_DIGITS))

    if path.suffix.lower() != ".star":
        whole = pandas.DataFrame(table)
        return {path / f"{t.name}.star": text({"particles": whole[index == i]}) for i, t in enumerate(types)}
    classes = {CLASS: np.arange(1, len(types) + 1), _NAME: [t.name for t in types]}
    particles = pandas.DataFrame({**table, CLASS: index + 1})
    return {path: text({"particles": particles, _NAMES_BLOCK: pandas.DataFrame(classes)})}


def read_tomograms(path: str | pathlib.Path, default: TomogramFrame) -> Frames:
    """The frames that RELION's `tomograms.star` gives: sizes, pixel sizes, and the spacing of binned tomograms.

    Raises:
        InputError: the file cannot be read or lacks a column.
    """
    path = pathlib.Path(path)
    sizes = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
    expected = "expected RELION's tomograms.star"
    table = next((b for b in read_blocks(path, expected).values() if TOMOGRAM in b.columns), None)
    needed = (TOMOGRAM, PIXEL_SIZE, *sizes)
    missing = [name for name in needed if table is None or name not in table.columns]
    if table is None or missing:
        raise InputError(f"{path}: lacks the column {', '.join(missing)}; {expected}")
    size, pixel = columns(table, sizes, path), column(table, PIXEL_SIZE, path)
    binning = column(table, "rlnTomoTomogramBinning", path) if "rlnTomoTomogramBinning" in table.columns else None
    by_run = {}
    for i, run in enumerate(tomogram_names(table, path)):
        x, y, z = (int(n) if abs(n) < 2**31 else 0 for n in size[i].tolist())
        spacing = None if binning is None else float(pixel[i] * binning[i])
        by_run[run] = TomogramFrame(
            pixel_size_angstrom=float(pixel[i]),
            unbinned_size_xyz=(x, y, z),
            voxel_spacing_xyz_angstrom=None if spacing is None else (spacing,) * 3,
        )
    return Frames(default=default, by_run=by_run)
