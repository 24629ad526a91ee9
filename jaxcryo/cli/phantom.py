"""`jaxcryo phantom`: a synthetic dataset in the challenge's layout."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Annotated

from tyro.conf import Positional

from jaxcryo.calling import command
from jaxcryo.cli.command import Command, Switch, shown


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
    voxel_spacing: Annotated[float, shown("ANGSTROM")] = 10.012444
    """voxel spacing in Å"""
    difficulty: Annotated[float, shown("D")] = 1.0
    """noise and crowding: 0 has none, 1 looks like a real denoised tomogram, 2 is harder"""
    seed: Annotated[int, shown("N")] = 0
    """random seed; the same one makes the same data"""
    particles: Annotated[str | None, shown("FILE", default="the challenge's")] = None
    """particle types: a copick config.json or a short .toml file (docs/formats.md)"""
    force: Switch = False
    """replace the synthetic runs in OUT"""


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
        "phantom data/easy --difficulty 0.3 --seed 7": "little noise and crowding",
        "phantom data/other --particles copick/config.json --voxel-spacing 13.48": (
            "the particles of a copick project; unknown names become irregular globules of their radius"
        ),
    },
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
    from jaxcryo.domain import CZII_TYPES
    from jaxcryo.phantom.dataset import PhantomConfig, write_dataset
    from jaxcryo.project.particles import read_particles

    types = CZII_TYPES if options.particles is None else read_particles(options.particles)
    config = PhantomConfig(
        shape_zyx=options.shape,
        spacing_angstrom=options.voxel_spacing,
        types=types,
        difficulty=options.difficulty,
    )
    size = "×".join(str(n) for n in config.shape_zyx)
    gigabytes = (options.runs + options.test_runs) * math.prod(config.shape_zyx) * 4 * 1.15 / 1e9
    print(
        f"Writing {options.runs} training and {options.test_runs} test runs of {size} voxels (z, y, x) at "
        f"{config.spacing_angstrom:g} Å with {len(types)} particle types, difficulty {config.difficulty:g}, seed "
        f"{options.seed}, to {options.out} (up to {gigabytes:.2g} GB)."
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
