"""Synthetic tomograms with their picks, and whole datasets of them in the challenge's layout."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
import shutil
from collections.abc import Callable, Sequence

import numpy as np

from jaxcryo.domain import (
    CZII_SHAPE_ZYX,
    CZII_SPACING_ANGSTROM,
    CZII_TYPES,
    ParticleType,
    Picks,
    Run,
    Volume,
    VoxelGrid,
    check_types,
)
from jaxcryo.errors import InputError
from jaxcryo.phantom.drawing import draw_phantom
from jaxcryo.phantom.imaging import Imaging, form_image
from jaxcryo.phantom.rendering import render_scene
from jaxcryo.phantom.scene import make_scene
from jaxcryo.phantom.settings import DrawConfig
from jaxcryo.picks.copick_json import write_kaggle_picks
from jaxcryo.progress import Progress
from jaxcryo.tomogram.volumes import write_ome_zarr

_LEAST_SIZE = 8
_RUN_NAME = re.compile(r"P[HT]_\d{3,}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """The settings of a synthetic dataset's tomograms; the defaults are the challenge's."""

    shape_zyx: tuple[int, int, int] = CZII_SHAPE_ZYX
    spacing_angstrom: float = CZII_SPACING_ANGSTROM
    types: tuple[ParticleType, ...] = CZII_TYPES
    difficulty: float = 1.0
    """Scales noise and crowding: 1 resembles the challenge's denoised tomograms, 0 has neither."""
    imaging: Imaging = dataclasses.field(default_factory=Imaging)
    clearance: float = 1.0
    """Least distance between two particles, in units of the sum of their radii."""

    def __post_init__(self) -> None:
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < _LEAST_SIZE:
            raise InputError(f"the shape is {self.shape_zyx}; expected three sizes (z, y, x) of {_LEAST_SIZE} or more")
        if not (math.isfinite(self.spacing_angstrom) and self.spacing_angstrom > 0):
            raise InputError(f"the voxel spacing is {self.spacing_angstrom} Å; it must be above 0")
        if not (math.isfinite(self.difficulty) and self.difficulty >= 0):
            raise InputError(f"the difficulty is {self.difficulty}; expected a number from 0 (no noise) upwards")
        if not (math.isfinite(self.clearance) and self.clearance >= 0):
            raise InputError(f"the clearance is {self.clearance}; expected a number from 0 upwards")
        if not self.types:
            raise InputError("no particle types are given; expected at least one")
        check_types(self.types)

    @property
    def grid(self) -> VoxelGrid:
        """The voxels of every tomogram."""
        return VoxelGrid(shape_zyx=self.shape_zyx, spacing_zyx_angstrom=(self.spacing_angstrom,) * 3)


def make_phantom(
    config: PhantomConfig,
    *,
    seed: int | Sequence[int],
    name: str = "PH_000",
    on_step: Callable[[str], object] = lambda step: None,
) -> tuple[Volume, Picks]:
    """A tomogram in memory and the particles in it, sorted by type.

    `grid.to_voxel` of a pick is where its particle's center of mass is. The same seed gives the same voxels bit for
    bit; difficulty and imaging leave the particles as they are. `on_step` is called with the name of each step.
    """
    grid = config.grid
    scene_seed, crowd_seed, noise_seed = np.random.SeedSequence(seed).spawn(3)
    on_step("placing")
    scene = make_scene(grid, config.types, scene_seed, crowding=config.difficulty, clearance=config.clearance)
    on_step("drawing")
    density = render_scene(grid, scene, config.types, crowd_seed)
    on_step("imaging")
    voxels = form_image(density, grid, config.imaging, noise_seed, config.difficulty)
    picks = Picks(
        run=name,
        types=config.types,
        xyz_angstrom=grid.to_angstrom(scene.zyx_voxel),
        type_index=scene.type_index,
    )
    return Volume(name=name, voxels=voxels, grid=grid), picks


def write_dataset(
    out: str | pathlib.Path,
    config: PhantomConfig | DrawConfig,
    *,
    seed: int = 0,
    runs: int = 7,
    test_runs: int = 0,
    force: bool = False,
    progress: bool = False,
) -> list[Run]:
    """Writes synthetic runs in the challenge's layout and returns them, training runs first.

    Training runs `PH_000`, … go to `<out>/train/static` with picks in `<out>/train/overlay`; test runs `PT_000`, … go
    to `<out>/test/static` without picks, which are kept in `<out>/test-truth`. A run depends on the seed and its own
    number alone. With `force` the runs of an earlier synthetic dataset are removed first, and nothing else.

    Raises:
        InputError: there is a dataset and `force` is not given, a number makes no sense, or `out` cannot be written.
    """
    out = pathlib.Path(out)
    if runs < 0 or test_runs < 0 or runs + test_runs < 1:
        raise InputError(f"{runs} training and {test_runs} test runs were asked for; expected at least one run")
    if seed < 0:
        raise InputError(f"the seed is {seed}; expected 0 or more")
    present = [out / part for part in ("train", "test", "test-truth") if (out / part).exists()]
    if present and not force:
        raise InputError(
            f"{out}: holds {', '.join(p.name for p in present)} already; choose another folder, or pass --force to "
            "replace the synthetic runs in it"
        )
    for old in present:
        _remove_runs(old)
    plan = [(False, i) for i in range(runs)] + [(True, i) for i in range(test_runs)]
    written = []
    with Progress(plan, desc="phantoms", unit="run", disable=not progress) as bar:
        for is_test, number in bar:
            name = f"{'PT' if is_test else 'PH'}_{number:03d}"

            def show(step: str, name: str = name) -> None:
                bar.set_postfix_str(f"{name}: {step}")

            volume, picks = _make(config, seed=(seed, int(is_test), number), name=name, on_step=show)
            show("writing")
            static = out / ("test" if is_test else "train") / "static"
            path = static / "ExperimentRuns" / name / _spacing_folder(config.spacing_angstrom) / "denoised.zarr"
            pick_paths = write_kaggle_picks(picks, out / "test-truth" if is_test else out / "train" / "overlay")
            # Last, since a run counts as one by its tomogram: none is left without picks when writing is interrupted.
            write_ome_zarr(path, volume.voxels, volume.grid.spacing_zyx_angstrom)
            picks_folder = None if is_test else pick_paths[0].parent
            written.append(Run(name=name, volume_path=path, picks_folder=picks_folder))
    return written


def _make(
    config: PhantomConfig | DrawConfig, *, seed: Sequence[int], name: str, on_step: Callable[[str], object]
) -> tuple[Volume, Picks]:
    if isinstance(config, PhantomConfig):
        return make_phantom(config, seed=seed, name=name, on_step=on_step)
    on_step("drawing")
    phantom = draw_phantom(config, seed)
    picks = Picks(
        run=name,
        types=config.types,
        xyz_angstrom=config.grid().to_angstrom(phantom.centers_zyx_voxel),
        type_index=phantom.type_index,
    )
    return Volume(name=name, voxels=phantom.voxels, grid=config.grid()), picks


def _spacing_folder(spacing_angstrom: float) -> str:
    """The nominal spacing, which is not the true one, as in the challenge's data."""
    return f"VoxelSpacing{round(spacing_angstrom, 1):.3f}"


def _remove_runs(part: pathlib.Path) -> None:
    for root in (part, part / "static", part / "overlay"):
        for run in (root / "ExperimentRuns").glob("P*_*"):
            if _RUN_NAME.fullmatch(run.name) and run.is_dir() and not run.is_symlink():
                shutil.rmtree(run)
