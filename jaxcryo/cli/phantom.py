"""`jaxcryo phantom`: a synthetic dataset in the challenge's layout, beads of a map, phantoms beside real planes."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

from jaxcryo.calling import command
from jaxcryo.cli.command import Command, Switch, shown
from jaxcryo.errors import InputError

if TYPE_CHECKING:
    from jaxcryo.phantom.dataset import PhantomConfig
    from jaxcryo.phantom.settings import DrawConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomOptions:
    """Make synthetic tomograms with known particles, in the layout of the CZII challenge."""

    out: Annotated[Positional[pathlib.Path], shown("OUT")]
    """folder to write to"""
    runs: Annotated[int, shown("N")] = 7
    """training runs"""
    test_runs: Annotated[int, shown("N")] = 0
    """test runs"""
    shape: Annotated[tuple[int, int, int], shown("Z Y X")] = (184, 630, 630)
    """tomogram size in voxels"""
    voxel_spacing: Annotated[float | None, shown("ANGSTROM", default="that of --like, else 10.012444")] = None
    """voxel spacing in Å"""
    difficulty: Annotated[float, shown("D")] = 1.0
    """noise level: 1 like a real tomogram, 2 twice as much; 0 has no noise and nothing unlabelled"""
    seed: Annotated[int, shown("N")] = 0
    """random seed; the same one makes the same data"""
    particles: Annotated[str | None, shown("FILE", default="the challenge's")] = None
    """particle types and their structures: a copick config.json or a short .toml file (docs/formats.md)"""
    imaging: Literal["real", "varied", "stranger", "simple"] = "real"
    """real: close to the challenge's tomograms; varied: as drawn in trainings; stranger: simulated in another way, for
    evaluation; simple: globules and plain noise, as in earlier versions"""
    like: Annotated[tuple[str, ...], shown("TOMOGRAM ...")] = ()
    """make phantoms that look like these tomograms: wedge, noise, scale and thickness are measured; no picks needed"""
    background: Annotated[tuple[str, ...], shown("TOMOGRAM ...")] = ()
    """put particles into these tomograms, which should hold few of them; implies --like"""
    force: Switch = False
    """replace the synthetic runs in OUT"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Fit beads to a density map (MRC) or a structure (PDB, mmCIF), and write them as a small table.

    The center of the beads is their center of mass; particles.toml may name the table as a structure.
    """

    map: Annotated[Positional[pathlib.Path], shown("MAP")]
    """density map or structure"""
    out: Annotated[pathlib.Path | None, shown("CSV", default="MAP's name with .csv, here")] = None
    """table to write"""
    contour: Annotated[float | None, shown("LEVEL", default="a tenth of the brightest voxel")] = None
    """density that belongs to the particle, in the map's units"""
    mass: Annotated[float | None, shown("KDA", default="protein within the contour")] = None
    """molecular mass in kDa, which decides how strong the particle's signal is"""
    beads: Annotated[int, shown("N")] = 2500
    """most beads"""
    force: Switch = False
    """replace an existing table"""


FIT = Command(
    name="phantom fit",
    summary="fit beads to a density map",
    options=FitOptions,
    action="jaxcryo.cli.phantom:fit",
    examples={
        "phantom fit emd_1234.mrc --contour 0.02 --mass 450": "writes emd_1234.csv",
        "phantom fit 1fa2.cif": "writes 1fa2.csv from the first biological assembly",
    },
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compare planes of a tomogram with those of fresh phantoms: print a table, and draw them side by side."""

    planes: Annotated[Positional[pathlib.Path], shown("PLANES")]
    """.npz of planes named xy_..., xz_... and yz_..., or a tomogram"""
    out: Annotated[pathlib.Path, shown("PNG")] = pathlib.Path("planes.png")
    """picture to write"""
    phantoms: Annotated[int, shown("N")] = 4
    """phantoms to average over"""
    imaging: Literal["real", "varied", "stranger"] = "real"
    """as in `phantom`"""
    size: Annotated[int, shown("N")] = 128
    """phantoms' edge in voxels"""
    seed: Annotated[int, shown("N")] = 0
    """random seed"""


COMPARE = Command(
    name="phantom compare",
    summary="compare planes of a tomogram with phantoms",
    options=CompareOptions,
    action="jaxcryo.cli.phantom:compare",
    examples={
        "phantom compare planes.npz --out planes.png": "the table, and a picture",
        "phantom compare tomogram.mrc --phantoms 2": "three planes of each kind from a tomogram's middle",
    },
)


PHANTOM = Command(
    name="phantom",
    summary="make synthetic tomograms with known particles, to try everything on",
    options=PhantomOptions,
    action="jaxcryo.cli.phantom:phantom",
    examples={
        "phantom data/phantom": (
            "seven training runs of the challenge's size and kind (about 0.3 GB and half a minute each)"
        ),
        "phantom data/phantom --runs 3 --test-runs 1 --shape 64 256 256": (
            "a small dataset to try training and inference on"
        ),
        "phantom data/easy --difficulty 0.3 --seed 7": "little noise, few particles",
        "phantom data/other --particles copick/config.json --voxel-spacing 13.48": (
            "the particles of a copick project; types without a structure become irregular globules of their radius"
        ),
        "phantom data/mine --particles particles.toml": (
            'particles of the structures that the file names, e.g. structure = "6qzp.cif"'
        ),
        "phantom data/mine --particles particles.toml --like tomograms/TS_1.mrc": (
            "the same, with the noise, wedge and scale of a tomogram of yours"
        ),
        "phantom fit emd_1234.mrc --contour 0.02": "a density map as beads, which particles.toml may name",
        "phantom compare planes.npz": "compare planes of a tomogram with phantoms",
    },
    others=(FIT, COMPARE),
    notes="""\
what is written:
  OUT/train/static/ExperimentRuns/PH_000/VoxelSpacing10.000/denoised.zarr     the tomogram (OME-Zarr)
  OUT/train/overlay/ExperimentRuns/PH_000/Picks/<particle>.json               where the particles are, in ångströms
  OUT/test/static/ExperimentRuns/PT_000/...                                   test runs, without picks
  OUT/test-truth/ExperimentRuns/PT_000/Picks/<particle>.json                  and their true picks""",
)
main = PHANTOM.main


def phantom(options: PhantomOptions) -> None:
    """Writes the dataset and lists its runs."""
    from jaxcryo.phantom.dataset import write_dataset

    config = _config(options)
    size = "×".join(str(n) for n in config.shape_zyx)
    gigabytes = (options.runs + options.test_runs) * math.prod(config.shape_zyx) * 4 * 1.15 / 1e9
    print(
        f"Writing {options.runs} training and {options.test_runs} test runs of {size} voxels (z, y, x) at "
        f"{config.spacing_angstrom:g} Å with {len(config.types)} particle types, difficulty {options.difficulty:g}, "
        f"seed {options.seed}, to {options.out} (up to {gigabytes:.2g} GB)."
    )
    written = write_dataset(
        options.out,
        config,
        seed=options.seed,
        runs=options.runs,
        test_runs=options.test_runs,
        force=options.force,
        progress=True,
    )
    print(f"Wrote {len(written)} runs:")
    for run in written:
        truth = options.out / "test-truth" / "ExperimentRuns" / run.name / "Picks"
        print(f"  {run.name}  tomogram {run.volume_path}  picks {run.picks_folder or truth}")
    print(f"next: {command(f'train --arch yu4u --fold 0 --data {options.out} --size small --minutes 15')}")


def _config(options: PhantomOptions) -> PhantomConfig | DrawConfig:
    from jaxcryo.domain import CZII_TYPES
    from jaxcryo.phantom.dataset import PhantomConfig
    from jaxcryo.phantom.likeness import like_files
    from jaxcryo.phantom.settings import config_for
    from jaxcryo.phantom.structures import describe_structures, structure_beads
    from jaxcryo.project.particles import StructuredType, read_structured_particles

    if options.particles is None:
        structured = tuple(StructuredType(type=t) for t in CZII_TYPES)
    else:
        structured = read_structured_particles(
            options.particles, measure=lambda source: structure_beads(source).radius_angstrom
        )
    types = tuple(s.type for s in structured)
    if options.imaging == "simple":
        if options.like or options.background:
            raise InputError(
                "--like and --background measure what --imaging simple does not draw; leave out one of them"
            )
        return PhantomConfig(
            shape_zyx=options.shape,
            spacing_angstrom=options.voxel_spacing or PhantomConfig.spacing_angstrom,
            types=types,
            difficulty=options.difficulty,
        )
    for line in describe_structures(structured):
        print(line)
    config = config_for(
        options.imaging,
        options.difficulty,
        types=types,
        structures=tuple(s.structure for s in structured),
        shape_zyx=options.shape,
    )
    return like_files(config, options.like, options.background, spacing_angstrom=options.voxel_spacing, note=print)


def fit(options: FitOptions) -> None:
    """Fits, writes the table and says what was assumed."""
    from jaxcryo.phantom.beads import write_beads
    from jaxcryo.phantom.structures import fit_structure

    out = options.out or pathlib.Path(f"{options.map.name.split('.')[0]}.csv")
    if out.exists() and not options.force:
        raise InputError(f"{out} already exists; choose another --out or pass --force")
    model = fit_structure(
        options.map, contour=options.contour, mass_kilodalton=options.mass, most=options.beads, note=print
    )
    write_beads(out, model)
    print(
        f"Wrote {out}: {len(model.xyz_angstrom)} beads, {model.total_kilodalton:.0f} kDa, radius "
        f"{model.radius_angstrom:.0f} Å"
    )


def compare(options: CompareOptions) -> None:
    """Prints the table and draws the picture."""
    from jaxcryo.phantom.comparison import compare_phantoms, given_planes
    from jaxcryo.phantom.settings import config_for

    given = given_planes(options.planes)
    config = config_for(options.imaging, 1.0, shape_zyx=(options.size,) * 3)
    print(compare_phantoms(given, config, count=options.phantoms, seed=options.seed, picture=options.out))
    print(f"Wrote {options.out}")
