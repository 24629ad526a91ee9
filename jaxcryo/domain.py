"""The terms of the project: particle types, voxel grids, tomograms and picks.

Imports nothing else of the project except its error and addresses (`Volume.open` excepted, which imports when it is
called).
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.stores.address import Address, Location

# Added when a position in ångströms becomes a label's voxel, before truncation (paper section 2.2: the particle's
# disc is drawn from pixel centres, on average).
LABEL_OFFSET_VOXEL = 1.0
# Truncation moves a position half a voxel down on average; added back when a voxel is reported (section 2.6).
CENTER_OFFSET_VOXEL = 0.5

Rows = Num[np.ndarray, "n 3"] | Sequence[Sequence[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParticleType:
    """A kind of particle to find. Its channel in a heatmap is its place in the tuple of types in use."""

    name: str
    radius_angstrom: float
    weight: float = 1.0
    """Weight in the metric's mean; 0 leaves the type out of it."""
    threshold: float = 0.3
    """Peaks of the heatmap at or below it are not picks. Training replaces it with the one it chooses."""
    sigma_angstrom: float | None = None
    """Width of the target's Gaussian; None uses the recipe's rule."""
    color: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        if not self.name or "_" in self.name or "/" in self.name:
            raise InputError(f"a particle type is called {self.name[:80]!r}; it needs a name without '_' and '/'")
        if not 0 < self.radius_angstrom < math.inf:
            raise InputError(f"{self.name}: the radius is {self.radius_angstrom} Å; it must be a number above 0")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"{self.name}: the weight is {self.weight}; it must be a number and not negative")
        if not math.isfinite(self.threshold):
            raise InputError(f"{self.name}: the threshold is {self.threshold}; it must be a number")
        if self.sigma_angstrom is not None and not 0 < self.sigma_angstrom < math.inf:
            raise InputError(f"{self.name}: the target's σ is {self.sigma_angstrom} Å; it must be a number above 0")
        if len(self.color) != 3 or not all(0 <= c <= 255 for c in self.color):
            raise InputError(f"{self.name}: the color is {str(self.color)[:80]}; expected three numbers from 0 to 255")


CZII_TYPES = (
    ParticleType(name="apo-ferritin", radius_angstrom=60, weight=1, color=(0, 255, 0)),
    ParticleType(name="beta-galactosidase", radius_angstrom=90, weight=2, color=(255, 0, 255)),
    ParticleType(name="ribosome", radius_angstrom=150, weight=1, color=(0, 92, 255)),
    ParticleType(name="thyroglobulin", radius_angstrom=130, weight=2, color=(255, 136, 0)),
    ParticleType(name="virus-like-particle", radius_angstrom=135, weight=1, color=(255, 30, 53)),
    ParticleType(name="beta-amylase", radius_angstrom=65, weight=0, color=(0, 240, 255)),
)
"""The six types of the CZII challenge in yu4u's channel order; their weights are the metric's."""
CZII_SPACING_ANGSTROM = 10.012444
"""Of the challenge's tomograms, whose folders are named VoxelSpacing10.000."""
CZII_SHAPE_ZYX = (184, 630, 630)
CZII_VOLUME_ANGSTROM3 = math.prod(CZII_SHAPE_ZYX) * CZII_SPACING_ANGSTROM**3
"""Of one of the challenge's tomograms, which numbers of particles in phantoms refer to."""


def check_types(types: Sequence[ParticleType]) -> None:
    """Raises InputError where two types have one name."""
    names = [t.name for t in types]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"particle types named twice: {', '.join(twice)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoxelGrid:
    """The one place where voxels become ångströms and vice versa.

    Ångströms are x, y, z from the volume's corner, as in copick and the challenge. Voxel positions are z, y, x array
    indices; an integer is a voxel's center.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_angstrom: tuple[float, float, float]
    origin_xyz_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Added to positions: not 0 if the grid does not begin at the corner from which positions are counted."""
    axes: str = "xyz"
    """Which axes of the positions the grid's own x, y and z are: `xzy` if y and z are swapped."""

    def __post_init__(self) -> None:
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise InputError(f"a volume's shape is {self.shape_zyx}; expected three sizes (z, y, x) above 0")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing_zyx_angstrom):
            raise InputError(
                f"the voxel spacing is {self.spacing_zyx_angstrom} Å; expected values above 0: "
                "pass the true one with --voxel-spacing"
            )
        if sorted(self.axes) != ["x", "y", "z"]:
            raise InputError(f"axes are {self.axes[:20]!r}; expected x, y and z in some order, such as xzy")

    @property
    def spacing_angstrom(self) -> float:
        """The mean spacing, for lengths that are the same along all axes (radii, target widths)."""
        return float(np.mean(self.spacing_zyx_angstrom))

    def in_frame_of(self, other: VoxelGrid) -> VoxelGrid:
        """This grid laid over the box of `other`, so that a position is at the same physical place in both.

        Corners coincide, half a voxel before the first voxels' centers. Without it, a position means the place that
        networks learn for it, which depends on the spacing by LABEL_OFFSET_VOXEL.
        """
        own = dataclasses.replace(self, origin_xyz_angstrom=(0.0, 0.0, 0.0))
        corner = np.full((1, 3), -0.5)
        x, y, z = (own._own_xyz(other.to_angstrom(corner)) - own._own_xyz(own.to_angstrom(corner)))[0].tolist()
        return dataclasses.replace(own, origin_xyz_angstrom=(x, y, z))

    def to_voxel(self, xyz_angstrom: Rows) -> Float[NDArray[np.float64], "n 3"]:
        """Sub-voxel z, y, x positions of the given x, y, z: the exact inverse of `to_angstrom`."""
        zyx = self._own_xyz(xyz_angstrom)[:, ::-1]
        return zyx / np.asarray(self.spacing_zyx_angstrom) + LABEL_OFFSET_VOXEL - CENTER_OFFSET_VOXEL

    def to_label_voxel(self, xyz_angstrom: Rows) -> Int[NDArray[np.int64], "n 3"]:
        """Whole z, y, x voxels as the published training code draws its labels (`02_create_mask.py`)."""
        zyx = self._own_xyz(xyz_angstrom)[:, ::-1]
        return np.trunc(zyx / np.asarray(self.spacing_zyx_angstrom) + LABEL_OFFSET_VOXEL).astype(np.int64)

    def to_angstrom(self, zyx_voxel: Rows) -> Float[NDArray[np.float64], "n 3"]:
        """x, y, z in ångströms of z, y, x voxel positions (paper section 2.6)."""
        zyx = np.asarray(zyx_voxel, np.float64).reshape(-1, 3)
        zyx_angstrom = (zyx + CENTER_OFFSET_VOXEL - LABEL_OFFSET_VOXEL) * np.asarray(self.spacing_zyx_angstrom)
        own = zyx_angstrom[:, ::-1] + self.origin_xyz_angstrom
        return own[:, [self.axes.index(axis) for axis in "xyz"]]

    def _own_xyz(self, xyz_angstrom: Rows) -> Float[NDArray[np.float64], "n 3"]:
        """Positions along the grid's own axes, from its own corner."""
        xyz = np.asarray(xyz_angstrom, np.float64).reshape(-1, 3)
        return xyz[:, ["xyz".index(axis) for axis in self.axes]] - self.origin_xyz_angstrom

    def contains(self, zyx_voxel: Rows) -> NDArray[np.bool_]:
        """Which positions lie in the volume, including half a voxel around its outermost voxels' centers."""
        zyx = np.asarray(zyx_voxel, np.float64).reshape(-1, 3)
        return np.all((zyx >= -CENTER_OFFSET_VOXEL) & (zyx <= np.asarray(self.shape_zyx) - CENTER_OFFSET_VOXEL), axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volume:
    """A tomogram: voxels in z, y, x order (a NumPy array, or anything that slices to one) on a grid."""

    name: str
    voxels: Any
    """NaN where there is no data."""
    grid: VoxelGrid
    has_gaps: bool = False
    """Whether it is known that some voxels hold no data."""

    @classmethod
    def open(
        cls,
        path: str | pathlib.Path | Address,
        *,
        name: str | None = None,
        spacing_angstrom: float | None = None,
        level: int = 0,
        cache: str | pathlib.Path | None = None,
    ) -> Volume:
        """A tomogram file or folder (MRC, OME-Zarr), or an OME-Zarr at an address (`s3://…`, `https://…`), whose
        voxels stay there until they are read.

        `spacing_angstrom` overrides the file's spacing at full resolution; `level` chooses a lower resolution, in which
        positions are the same. Data from servers are kept in the folder `cache`, up to 20 GB.

        Raises:
            InputError: nothing is there, or it cannot be used; the message says why.
        """
        from jaxcryo.stores.cache import Cache
        from jaxcryo.tomogram.volumes import open_volume  # the one way up from here, taken only when this is called

        kept = None if cache is None else Cache(cache)
        return open_volume(path, name=name, spacing_angstrom=spacing_angstrom, level=level, cache=kept)

    def load(self) -> Float[NDArray[np.float32], "z y x"]:
        """The voxels as float32 in memory, NaN where there is no data.

        Raises:
            InputError: a chunk cannot be read, or values are infinite.
        """
        return self.read(0, self.grid.shape_zyx[0])

    def read(self, z_start: int, z_stop: int) -> Float[NDArray[np.float32], "z y x"]:
        """The slices from `z_start` up to `z_stop` as float32 in memory; raises as `load` does."""
        return self.read_box(slice(z_start, z_stop), slice(None), slice(None))

    def read_box(self, z: slice, y: slice, x: slice) -> Float[NDArray[np.float32], "z y x"]:
        """A box of voxels as float32 in memory; raises as `load` does."""
        where = f"{self.name}: slices {z.start} to {z.stop - 1}"
        try:
            box = np.asarray(self.voxels[z, y, x], dtype=np.float32)
        except InputError:
            raise
        except Exception as error:  # storage backends raise their own kinds for a damaged chunk
            raise InputError(
                f"{where} cannot be read ({type(error).__name__}: {str(error) or 'damaged chunk'}); the file is "
                "truncated or damaged: copy it again"
            ) from error
        bad = int(np.count_nonzero(np.isinf(box)))
        if bad:
            raise InputError(
                f"{where}: {bad} voxels are infinite; expected finite intensities: reconstruct again, or replace them "
                "with the mean"
            )
        return box


MEASURES = ("second_type", "second_score", "border_angstrom", "surface_angstrom")
"""The index of the best other type at a pick's place, the score it has there, and the distances to the tomogram's
border and to a mask's surface."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picks:
    """Particle positions of one run: x, y, z in ångströms, and the type of each (index into `types`)."""

    run: str
    types: tuple[ParticleType, ...]
    xyz_angstrom: Float[NDArray[np.float64], "n 3"]
    type_index: Int[NDArray[np.int64], " n"]
    score: Float[NDArray[np.float64], " n"] | None = None
    """Higher is better; the scale is that of the program that picked."""
    probability: Float[NDArray[np.float64], " n"] | None = None
    """The calibrated chance that a pick is right, from 0 to 1."""
    orientation: Float[NDArray[np.float64], "n 3 3"] | None = None
    """Rotation matrices that turn the reference into the particle: R @ v is the direction in the tomogram (x, y, z)
    of v in the reference. The identity where a pick has none, as in copick."""
    measured: Mapping[str, Float[NDArray[np.float64], " n"]] = dataclasses.field(default_factory=dict)
    """What else is known of each pick, by the names of `MEASURES`; NaN where a pick has none."""

    def __post_init__(self) -> None:
        n = len(self.type_index)
        single = [self.score, self.probability, *self.measured.values()]
        optional: list[tuple[Any, tuple[int, ...]]] = [(self.orientation, (n, 3, 3)), *((v, (n,)) for v in single)]
        if self.xyz_angstrom.shape != (n, 3) or any(a is not None and a.shape != shape for a, shape in optional):
            raise InputError(f"{self.run}: positions, types, scores or orientations of picks differ in number")

    def __len__(self) -> int:
        return len(self.type_index)

    def of(self, name: str) -> Float[NDArray[np.float64], "n 3"]:
        """x, y, z of the picks of the type with this name.

        Raises:
            InputError: there is no such type.
        """
        names = [t.name for t in self.types]
        if name not in names:
            raise InputError(f"{name!r} is not one of the particle types; they are {', '.join(names)}")
        return self.of_type(names.index(name))

    def counts(self) -> dict[str, int]:
        """The number of picks of each type."""
        return {t.name: int((self.type_index == i).sum()) for i, t in enumerate(self.types)}

    def of_type(self, index: int) -> Float[NDArray[np.float64], "n 3"]:
        """x, y, z of the picks of one type."""
        return self.xyz_angstrom[self.type_index == index]

    def select(self, keep: NDArray[Any]) -> Picks:
        """The picks that a mask or an array of indices selects."""
        return dataclasses.replace(
            self,
            xyz_angstrom=self.xyz_angstrom[keep],
            type_index=self.type_index[keep],
            score=None if self.score is None else self.score[keep],
            probability=None if self.probability is None else self.probability[keep],
            orientation=None if self.orientation is None else self.orientation[keep],
            measured={name: values[keep] for name, values in self.measured.items()},
        )

    def above(self, thresholds: Sequence[float]) -> Picks:
        """The picks whose score exceeds the threshold of their type, given in the order of the types.

        Raises:
            InputError: picks have no scores.
        """
        if self.score is None and len(self):
            raise InputError(f"{self.run}: its picks have no scores; thresholds need them: start from copick's picks")
        score = np.zeros(0) if self.score is None else self.score
        return self.select(score > np.asarray(thresholds, np.float64)[self.type_index])


def concatenate_picks(parts: Sequence[Picks], run: str, types: tuple[ParticleType, ...]) -> Picks:
    """All picks of `parts` as those of one run. Scores and probabilities are kept if all parts have them; orientations
    and measures if any has, with the identity or NaN for the others.
    """

    def joined(values: Sequence[Any]) -> Any:
        return np.concatenate(values) if values and all(v is not None for v in values) else None

    oriented = any(p.orientation is not None for p in parts)
    names = [name for name in MEASURES if any(name in p.measured for p in parts)]
    return Picks(
        run=run,
        types=types,
        xyz_angstrom=np.concatenate([np.zeros((0, 3)), *(p.xyz_angstrom for p in parts)]),
        type_index=np.concatenate([np.zeros(0, np.int64), *(p.type_index for p in parts)]),
        score=joined([p.score for p in parts]),
        probability=joined([p.probability for p in parts]),
        orientation=joined([_orientation(p) for p in parts]) if oriented else None,
        measured={
            name: np.concatenate([p.measured.get(name, np.full(len(p), np.nan)) for p in parts]) for name in names
        },
    )


def _orientation(picks: Picks) -> Float[NDArray[np.float64], "n 3 3"]:
    return np.tile(np.eye(3), (len(picks), 1, 1)) if picks.orientation is None else picks.orientation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One tomogram, on disk or on a server, and the folder of its picks, if it has one."""

    name: str
    volume_path: Location
    picks_folder: pathlib.Path | None = None
