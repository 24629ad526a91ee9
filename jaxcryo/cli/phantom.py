"""`jaxcryo phantom OUT`: writes a synthetic dataset in the challenge's layout."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from jaxcryo.calling import as_called
from jaxcryo.domain import CZII_TYPES
from jaxcryo.errors import InputError
from jaxcryo.phantom.dataset import PhantomConfig, write_dataset
from jaxcryo.project.particles import read_particles

_EXAMPLES = """\
examples:
  jaxcryo phantom data/phantom
      seven training runs of the challenge's size and kind (about 0.3 GB and half a minute each)
  jaxcryo phantom data/phantom --runs 3 --test-runs 1 --shape 64 256 256
      a small dataset to try training and inference on
  jaxcryo phantom data/easy --difficulty 0.3 --seed 7
      little noise and crowding; 0 has none, 1 looks like a real denoised tomogram, 2 is harder
  jaxcryo phantom data/other --particles copick/config.json --voxel-spacing 13.48
      the particles of a copick project; names that are not known become irregular globules of their radius

what is written:
  OUT/train/static/ExperimentRuns/PH_000/VoxelSpacing10.000/denoised.zarr     the tomogram (OME-Zarr)
  OUT/train/overlay/ExperimentRuns/PH_000/Picks/<particle>.json               where the particles are, in ångströms
  OUT/test/static/ExperimentRuns/PT_000/...                                   test runs, without picks
  OUT/test-truth/ExperimentRuns/PT_000/Picks/<particle>.json                  and what they would have been
"""


def main(arguments: Sequence[str] | None = None, *, prog: str = "jaxcryo phantom") -> int:
    """Runs the command and gives its exit code: 0, or 2 for input that cannot be used."""
    options = _parser(prog).parse_args(arguments)
    try:
        return _write(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _write(options: argparse.Namespace) -> int:
    types = CZII_TYPES if options.particles is None else read_particles(options.particles)
    config = PhantomConfig(
        shape_zyx=tuple(options.shape),
        spacing_angstrom=options.voxel_spacing,
        types=types,
        difficulty=options.difficulty,
    )
    size = "×".join(str(n) for n in config.shape_zyx)
    gigabytes = (options.runs + options.test_runs) * float(np.prod(config.shape_zyx)) * 4 * 1.15 / 1e9
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
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    default = PhantomConfig()
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Writes synthetic tomograms with known particles, in the layout of the CZII challenge.",
        epilog=as_called(_EXAMPLES, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=pathlib.Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--runs", type=int, default=7, metavar="N", help="training runs (default: 7)")
    parser.add_argument("--test-runs", type=int, default=0, metavar="M", help="test runs (default: 0)")
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        default=default.shape_zyx,
        metavar=("Z", "Y", "X"),
        help=f"voxels of a tomogram (default: {' '.join(str(n) for n in default.shape_zyx)})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the same one gives the same data (default: 0)"
    )
    parser.add_argument(
        "--difficulty", type=float, default=default.difficulty, metavar="D", help="noise and crowding (default: 1)"
    )
    parser.add_argument(
        "--voxel-spacing",
        type=float,
        default=default.spacing_angstrom,
        metavar="ANGSTROM",
        help=f"ångströms per voxel (default: {default.spacing_angstrom})",
    )
    parser.add_argument(
        "--particles",
        type=pathlib.Path,
        metavar="FILE",
        help="copick config.json or short .toml file whose particles replace the challenge's",
    )
    parser.add_argument("--force", action="store_true", help="replace the synthetic runs that OUT already holds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
