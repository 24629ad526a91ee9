"""From a structure's file to beads: PDB and mmCIF through gemmi, and density maps in MRC."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Sequence

import mrcfile
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.ndimage import spline_filter, zoom

from jaxcryo.errors import InputError
from jaxcryo.phantom.beads import (
    BEAD_SIGMA_ANGSTROM,
    PROTEIN_KILODALTON_PER_ANGSTROM3,
    BeadModel,
    Points,
    packaged_beads,
    packaged_names,
    read_beads,
)
from jaxcryo.phantom.fitting import fit_beads
from jaxcryo.project.particles import StructuredType

_ATOMS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".cif.gz", ".ent.gz")
_MAPS = (".mrc", ".map", ".ccp4", ".mrc.gz", ".map.gz")
_FINE_ANGSTROM = 5.0
# Of a map without a contour: density below this share of the brightest is taken for its background.
_CONTOUR_SHARE = 0.1
_MOST_VOXELS = 1024**3
_MARGIN_VOXEL = 4
_CELL_ANGSTROM = 5.0
_CELLS_OF_A_GLOBULE_ANGSTROM = 20.0


def ignore(message: str) -> None:
    """For callers that need no notes on what was assumed."""


def structure_beads(source: str, *, note: Callable[[str], object] = ignore) -> BeadModel:
    """The beads of a structure: a name that comes with the package, or a file (PDB, mmCIF, MRC, table of beads).

    Raises:
        InputError: the file cannot be used.
    """
    if source in packaged_names():
        return packaged_beads(source)
    model, notes = _read(source)
    for line in notes:
        note(line)
    return model


@functools.lru_cache(maxsize=64)
def _read(source: str) -> tuple[BeadModel, tuple[str, ...]]:
    path = pathlib.Path(source)
    notes: list[str] = []
    if not path.is_file():
        raise InputError(
            f"structure {source!r} is neither a file nor one of those that come with the package: "
            f"{', '.join(packaged_names())}"
        )
    name = path.name.lower()
    if name.endswith(".csv"):
        return read_beads(path), ()
    if name.endswith(_ATOMS):
        return atoms_to_beads(path, notes.append), tuple(notes)
    if name.endswith(_MAPS):
        return map_to_beads(path, note=notes.append), tuple(notes)
    raise InputError(
        f"{path}: expected a structure as {', '.join(_ATOMS[:4])} (also .gz), a density map as {', '.join(_MAPS[:3])}, "
        "or a table of beads as .csv"
    )


def atoms_to_beads(path: pathlib.Path, note: Callable[[str], object] = ignore) -> BeadModel:
    """The beads of the first biological assembly of a PDB or mmCIF file, from its first model's atoms.

    Waters are left out; an atom counts by its mass (hydrogens, which files lack, by a tenth).

    Raises:
        InputError: it is not such a file, or names no atoms.
    """
    import gemmi  # only here: half a second that nobody else should wait for

    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: is not a structure that gemmi reads ({str(error)[:200]})") from error
    structure.setup_entities()
    if len(structure) == 0:
        raise InputError(f"{path}: has no model with atoms")
    if structure.assemblies:
        try:
            structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.Short)
            note(f"{path.name}: biological assembly {structure.assemblies[0].name if structure.assemblies else 1}")
        except (RuntimeError, ValueError, IndexError) as error:
            note(f"{path.name}: no assembly can be built ({str(error)[:100]}); the file's atoms are taken as they are")
    else:
        note(f"{path.name}: no biological assembly is given; the file's atoms are taken as they are")
    structure.remove_waters()
    positions, masses = [], []
    for residue in (r for chain in structure[0] for r in chain):
        for atom in residue:
            if atom.altloc in ("\0", "A"):
                positions.append(atom.pos.tolist())
                masses.append(atom.element.weight * atom.occ * (1.0 if atom.is_hydrogen() else 1.07))
    if not positions or sum(masses) <= 0:
        raise InputError(f"{path}: names no atoms")
    points, mass = _in_cells(np.array(positions), np.array(masses) / 1000)
    return fit_beads(path.stem, points, mass, source=f"atoms of {path.name}")


def _in_cells(
    points: Points, mass: Float[NDArray[np.float64], " m"]
) -> tuple[Points, Float[NDArray[np.float64], " k"]]:
    """Atoms gathered into small cells, each at its center of mass."""
    cell = np.floor((points - points.min(axis=0)) / _CELL_ANGSTROM).astype(np.int64)
    _, index = np.unique(cell, axis=0, return_inverse=True)
    index = index.reshape(-1)
    total = np.bincount(index, mass)
    kept = total > 0
    centers = np.stack([np.bincount(index, mass * points[:, a]) / np.maximum(total, 1e-300) for a in range(3)], axis=1)
    return centers[kept], np.asarray(total[kept], np.float64)


def map_to_beads(
    path: pathlib.Path,
    *,
    contour: float | None = None,
    mass_kilodalton: float | None = None,
    most: int = 2500,
    note: Callable[[str], object] = ignore,
) -> BeadModel:
    """The beads of a density map: what lies above the contour, by its own voxel size, around its center of mass.

    Density may be bright or dark; this is recognized by the heavier tail, with a note. Without a mass, the space
    within the contour counts as protein.

    Raises:
        InputError: it is not such a map, or nothing lies above the contour.
    """
    density, spacing = _read_map(path)
    middle = float(np.median(density))
    sign = 1.0 if density.max() - middle >= middle - density.min() else -1.0
    if sign < 0:
        note(f"{path.name}: density is dark in this map (its darkest voxel is farther from the median); sign changed")
    density = sign * (density - middle)
    level = _CONTOUR_SHARE * float(density.max()) if contour is None else sign * (contour - middle)
    if contour is None:
        note(f"{path.name}: no contour given; {sign * level + middle:.3g} is used, a tenth of the brightest voxel")
    density = _cropped(density, max(level, 0.0))
    factor = max(1, round(spacing / _FINE_ANGSTROM))
    if factor > 1:
        # A fit to a coarse grid would put a bead on each voxel.
        density = zoom(
            spline_filter(density, 3), factor, order=3, prefilter=False, grid_mode=True, mode="grid-constant"
        )
    inside = np.argwhere(density > max(level, 0.0))
    if len(inside) < 8:
        raise InputError(f"{path}: {len(inside)} voxels lie above the contour {level:.3g}; choose a lower one")
    step = spacing / factor
    values = density[tuple(inside.T)].astype(np.float64)
    points = np.asarray(((inside + 0.5) * step)[:, ::-1], np.float64)
    if mass_kilodalton is None:
        mass_kilodalton = len(inside) * step**3 * PROTEIN_KILODALTON_PER_ANGSTROM3
        note(f"{path.name}: no mass given; {mass_kilodalton:.0f} kDa, of protein within the contour")
    return fit_beads(
        path.name.split(".")[0], points, values * (mass_kilodalton / values.sum()), most=most, source=f"map {path.name}"
    )


def _cropped(density: Float[NDArray[np.float64], "z y x"], level: float) -> Float[NDArray[np.float64], "d h w"]:
    """The box around what lies above the contour, with room for splines."""
    above = np.argwhere(density > level)
    if not len(above):
        return density[:1, :1, :1]
    low, high = np.maximum(above.min(axis=0) - _MARGIN_VOXEL, 0), above.max(axis=0) + _MARGIN_VOXEL + 1
    return density[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


def _read_map(path: pathlib.Path) -> tuple[Float[NDArray[np.float64], "z y x"], float]:
    try:
        with mrcfile.open(path, permissive=False) as file:
            density, sizes = np.array(file.data, np.float64), file.voxel_size
            spacings = np.array([float(sizes.x), float(sizes.y), float(sizes.z)])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not an MRC map ({str(error)[:200]})") from error
    if density.ndim != 3 or density.size > _MOST_VOXELS or not np.all(np.isfinite(density)):
        raise InputError(f"{path}: expected a map of three axes and finite values; its shape is {density.shape}")
    if not np.all(spacings > 0) or np.ptp(spacings) > 0.01 * spacings.max():
        raise InputError(f"{path}: the header's voxel size is {tuple(spacings)} Å; expected one size above 0")
    return density, float(spacings.mean())


def globule_beads(name: str, radius_angstrom: float) -> BeadModel:
    """An irregular body of protein for a type without a structure; its name decides the shape."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    parts, center = [], np.zeros(3)
    for _ in range(int(rng.integers(2, 5))):
        ball = rng.normal(size=(150, 3))
        ball *= rng.uniform(size=(150, 1)) ** (1 / 3) / np.linalg.norm(ball, axis=1, keepdims=True)
        parts.append(ball * rng.uniform(0.3, 0.6, 3) + center)
        step = rng.normal(size=3)
        center = center + 0.55 * step / np.linalg.norm(step)
    points = np.concatenate(parts)
    points = points - points.mean(axis=0)
    points *= (radius_angstrom - BEAD_SIGMA_ANGSTROM) / np.linalg.norm(points, axis=1).max()
    cells = len(np.unique(np.floor(points / _CELLS_OF_A_GLOBULE_ANGSTROM).astype(int), axis=0))
    mass = cells * _CELLS_OF_A_GLOBULE_ANGSTROM**3 * PROTEIN_KILODALTON_PER_ANGSTROM3
    masses = np.full(len(points), mass / len(points))
    return BeadModel(name=name, xyz_angstrom=points, mass_kilodalton=masses, source="no structure: a globule")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """Which packaged beads a particle's name stands for."""

    beads: str
    scales: tuple[float, float] = (1.0, 1.0)
    """Sizes that are drawn, where the shape only stands in for the true one."""
    filling_kilodalton: tuple[float, float] = (0.0, 0.0)
    """Of nucleic acid inside, which the map does not show and real particles have more or less of."""
    filling_radius_angstrom: float = 0.0


BUILT_IN = {
    "apo-ferritin": BuiltIn(beads="6pxm"),
    "beta-galactosidase": BuiltIn(beads="6drv"),
    "ribosome": BuiltIn(beads="6qzp"),
    "thyroglobulin": BuiltIn(beads="7n4y"),
    "virus-like-particle": BuiltIn(beads="6n4v", filling_kilodalton=(0.0, 1500.0), filling_radius_angstrom=120.0),
    # No assembled map of the tetramer (224 kDa, 90 to 100 Å) is at hand; RuBisCO's octamer made smaller stands in.
    "beta-amylase": BuiltIn(beads="1bxn", scales=(0.75, 1.0)),
}

COMPANY = ("1qvr", "1s3x", "1u6g", "2uv8", "3cf3", "3d2f", "3h84", "4cr2", "6utj")
"""Unlabelled bodies of training phantoms."""

STRANGERS = ("2cg9", "3j9i", "4v94")
"""Never in a training phantom: company of the held-out family, and particles that no model has seen."""


def fit_structure(
    path: pathlib.Path,
    *,
    contour: float | None = None,
    mass_kilodalton: float | None = None,
    most: int = 2500,
    note: Callable[[str], object] = ignore,
) -> BeadModel:
    """Beads of a map or of a structure's atoms, for a table.

    Raises:
        InputError: the file cannot be used, or a contour is given for atoms.
    """
    if most < 4:
        raise InputError(f"--beads is {most}; expected 4 or more")
    if path.name.lower().endswith(_MAPS):
        return map_to_beads(path, contour=contour, mass_kilodalton=mass_kilodalton, most=most, note=note)
    if contour is not None:
        raise InputError(f"{path}: a contour belongs to density maps ({', '.join(_MAPS[:3])})")
    model = structure_beads(str(path), note=note)
    if mass_kilodalton is None:
        return model
    factor = mass_kilodalton / model.total_kilodalton
    return dataclasses.replace(model, mass_kilodalton=model.mass_kilodalton * factor)


def describe_structures(types: Sequence[StructuredType]) -> list[str]:
    """What stands for each type, in a line each where it is not the type's own shape as built in."""
    lines = []
    for entry in types:
        type_ = entry.type
        if entry.structure:
            lines_of: list[str] = []
            model = structure_beads(entry.structure, note=lines_of.append)
            lines += [*lines_of, f"{type_.name}: {entry.structure}, {model.total_kilodalton:.0f} kDa"]
        elif type_.name not in BUILT_IN:
            lines.append(
                f"{type_.name}: no structure is named; an irregular globule of {type_.radius_angstrom:g} Å stands in"
            )
    return lines
