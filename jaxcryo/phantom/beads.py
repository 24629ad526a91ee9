"""Structures as clouds of Gaussian beads, and the tables of them that come with the package."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import io
import pathlib

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from jaxcryo.errors import InputError

Points = Float[NDArray[np.float64], "_n 3"]

BEAD_SIGMA_ANGSTROM = 7.0
"""The width of every bead: one for all, so that a whole scene is blurred at once; coarser than a tomogram's detail."""

PROTEIN_KILODALTON_PER_ANGSTROM3 = 0.81e-3
"""Density of dry protein (0.73 cm³/g)."""

_HEADER = "x_angstrom,y_angstrom,z_angstrom,kilodalton"
_MAX_BEADS = 200_000

# What reaches this share of the mass counts as the body; the rest is a fit's stray beads.
_BODY = 0.995


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeadModel:
    """Beads around their common center of mass, each with the mass that it stands for.

    Mass is contrast: above vitreous ice, protein scatters 0.093 Å a dalton and nucleic acid 0.091 Å (sums of the
    atoms' forward scattering factors less the displaced ice's), so that RNA shows more only since it is denser.
    """

    name: str
    xyz_angstrom: Points
    mass_kilodalton: Float[NDArray[np.float64], " n"]
    source: str = ""

    @property
    def total_kilodalton(self) -> float:
        """The mass of all beads."""
        return float(self.mass_kilodalton.sum())

    @functools.cached_property
    def radius_angstrom(self) -> float:
        """Half the longest extent: how far from the center of mass the body reaches."""
        distance = np.linalg.norm(self.xyz_angstrom, axis=1)
        order = np.argsort(distance)
        mass = np.cumsum(self.mass_kilodalton[order])
        reach = distance[order][min(int(np.searchsorted(mass, _BODY * mass[-1])), len(order) - 1)]
        return float(reach + BEAD_SIGMA_ANGSTROM)

    def centered(self) -> BeadModel:
        """The same body, its center of mass at 0."""
        center = np.average(self.xyz_angstrom, axis=0, weights=self.mass_kilodalton)
        return dataclasses.replace(self, xyz_angstrom=self.xyz_angstrom - center)

    def scaled(self, factor: float) -> BeadModel:
        """The same shape in another size, its mass growing with the volume."""
        return dataclasses.replace(
            self, xyz_angstrom=self.xyz_angstrom * factor, mass_kilodalton=self.mass_kilodalton * factor**3
        )


def write_beads(path: pathlib.Path, model: BeadModel) -> None:
    """A table that `read_beads` reads back, to 0.1 Å and a dalton."""
    table = np.column_stack([model.xyz_angstrom, model.mass_kilodalton])
    head = f"# {model.name}: {model.source}\n{_HEADER}\n"
    rows = io.StringIO()
    np.savetxt(rows, table, fmt=("%.1f", "%.1f", "%.1f", "%.3f"), delimiter=",")
    path.write_text(head + rows.getvalue(), encoding="utf-8")


def read_beads(path: pathlib.Path) -> BeadModel:
    """The beads of a table that `jaxcryo phantom fit` wrote, about their center of mass.

    Raises:
        InputError: the file is not such a table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a table of beads") from error
    return _from_table(text, path.stem, str(path))


@functools.cache
def packaged_names() -> tuple[str, ...]:
    """The structures whose beads come with the package."""
    folder = importlib.resources.files("jaxcryo.phantom") / "tables"
    return tuple(sorted(p.name.removesuffix(".csv") for p in folder.iterdir() if p.name.endswith(".csv")))


@functools.cache
def packaged_beads(name: str) -> BeadModel:
    """The beads of a structure that comes with the package."""
    file = importlib.resources.files("jaxcryo.phantom") / "tables" / f"{name}.csv"
    return _from_table(file.read_text(encoding="utf-8"), name, f"{name}.csv")


def _from_table(text: str, name: str, where: str) -> BeadModel:
    lines = text.splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    rows = [line for line in lines if line.strip() and not line.startswith("#")]
    if not rows or rows[0].strip() != _HEADER:
        raise InputError(f"{where}: is not a table of beads; its first row should be {_HEADER}")
    if not 1 <= len(rows) - 1 <= _MAX_BEADS:
        raise InputError(f"{where}: has {len(rows) - 1} beads; expected 1 to {_MAX_BEADS}")
    try:
        table = np.array([[float(v) for v in row.split(",")] for row in rows[1:]])
    except ValueError as error:
        raise InputError(f"{where}: a bead is not four numbers ({error})") from error
    if table.ndim != 2 or table.shape[1] != 4 or not np.all(np.isfinite(table)) or np.any(table[:, 3] < 0):
        raise InputError(f"{where}: a bead needs x, y, z in Å and a mass of 0 kDa or more, all finite")
    if table[:, 3].sum() <= 0:
        raise InputError(f"{where}: the beads have no mass")
    source = comments[0].partition(": ")[2] if comments else ""
    return BeadModel(name=name, xyz_angstrom=table[:, :3], mass_kilodalton=table[:, 3], source=source).centered()
