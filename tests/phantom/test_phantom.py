"""Laws of synthetic tomograms: where things are, how they look, and that a seed means one dataset."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

from jaxcryo.cli.phantom import main
from jaxcryo.domain import CZII_TYPES, ParticleType, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.phantom import Imaging, PhantomConfig, make_phantom, write_dataset
from jaxcryo.phantom.particles import particle_model
from jaxcryo.phantom.scene import ABUNDANCES, make_scene
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.project.dataset import find_runs, read_run_picks
from jaxcryo.tomogram.volumes import open_volume

SMALL = PhantomConfig(shape_zyx=(24, 60, 64))
CLEAR = Imaging(tilt_range_degree=90, optics=None)


def test_the_density_of_each_type_is_centered_at_its_pick() -> None:
    for type_ in (*CZII_TYPES, ParticleType(name="unknown", radius_angstrom=110)):
        config = PhantomConfig(shape_zyx=(84, 100, 96), types=(type_,), difficulty=0, imaging=CLEAR, clearance=1.5)
        checked = 0
        for seed in range(16):
            volume, picks = make_phantom(config, seed=seed)
            density = volume.voxels.max() - volume.voxels.astype(np.float64)
            reach = int(np.ceil(1.45 * type_.radius_angstrom / config.spacing_angstrom))
            for center in volume.grid.to_voxel(picks.xyz_angstrom):
                start, stop = np.round(center).astype(int) - reach, np.round(center).astype(int) + reach + 1
                if np.any(start < 0) or np.any(stop > config.shape_zyx):
                    continue
                axes = np.stack(np.meshgrid(*map(np.arange, start, stop), indexing="ij"), axis=-1)
                box = density[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
                box = np.where(np.linalg.norm(axes - center, axis=-1) <= reach, box, 0)
                mass = np.einsum("zyx,zyxc->c", box, axes) / box.sum()
                np.testing.assert_allclose(mass, center, atol=0.05)
                checked += 1
        assert checked > 0, type_.name


def test_models_fill_their_radius_around_their_center_of_mass() -> None:
    for type_ in (*CZII_TYPES, ParticleType(name="unknown", radius_angstrom=110)):
        model = particle_model(type_)
        np.testing.assert_allclose(model.amplitude @ model.xyz_angstrom, 0, atol=1e-9)
        reach = np.linalg.norm(model.xyz_angstrom, axis=1).max() + 1.5 * model.sigma_angstrom
        assert reach == pytest.approx(type_.radius_angstrom)
        np.testing.assert_array_equal(model.xyz_angstrom, particle_model(type_).xyz_angstrom)
    other = particle_model(ParticleType(name="other", radius_angstrom=110))
    assert other.xyz_angstrom.shape != model.xyz_angstrom.shape or not np.allclose(
        other.xyz_angstrom, model.xyz_angstrom
    )


def missing(config: PhantomConfig, degree: float) -> NDArray[np.bool_]:
    """Where a real FFT has directions steeper than `degree`."""
    shape, spacing = config.shape_zyx, config.spacing_angstrom
    kz = np.abs(np.fft.fftfreq(shape[0], spacing))[:, None]
    kx = np.fft.rfftfreq(shape[2], spacing)
    steep = kz > np.tan(np.radians(degree)) * kx
    return np.broadcast_to(steep[:, None], (shape[0], shape[1], shape[2] // 2 + 1))


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_the_missing_wedge_is_empty_and_the_rest_is_not(difficulty: float) -> None:
    config = dataclasses.replace(SMALL, difficulty=difficulty)
    volume, _ = make_phantom(config, seed=1)
    power = np.abs(scipy.fft.rfftn((volume.voxels - config.imaging.mean).astype(np.float64))) ** 2
    wedge = missing(config, 60)
    assert power[wedge].mean() < 1e-7 * power[~wedge].mean()
    full = dataclasses.replace(config, imaging=Imaging(tilt_range_degree=90))
    complete, _ = make_phantom(full, seed=1)
    power = np.abs(scipy.fft.rfftn((complete.voxels - config.imaging.mean).astype(np.float64))) ** 2
    assert power[wedge].mean() > 1e-2 * power[~wedge].mean()


def test_no_two_particles_overlap() -> None:
    config = PhantomConfig(shape_zyx=(40, 160, 160))
    for clearance in (1.0, 1.4):
        _, picks = make_phantom(dataclasses.replace(config, clearance=clearance), seed=3)
        radii = np.array([t.radius_angstrom for t in CZII_TYPES])[picks.type_index]
        distances = np.linalg.norm(picks.xyz_angstrom[:, None] - picks.xyz_angstrom[None], axis=-1)
        np.fill_diagonal(distances, np.inf)
        assert np.all(distances >= clearance * (radii[:, None] + radii[None]) - 1e-6)


def test_numbers_follow_the_challenge_and_small_volumes_have_every_type() -> None:
    counts = []
    for seed in range(12):
        scene = make_scene(PhantomConfig().grid, CZII_TYPES, np.random.SeedSequence(seed), crowding=0, clearance=1)
        counts.append(np.bincount(scene.type_index, minlength=6))
    for name, of_type in zip([t.name for t in CZII_TYPES], np.transpose(counts), strict=True):
        known = ABUNDANCES[name]
        assert known.least <= of_type.min() and of_type.max() <= known.most + 1
        assert of_type.mean() == pytest.approx(known.mean, rel=0.25)
    _, picks = make_phantom(PhantomConfig(shape_zyx=(40, 96, 96)), seed=0)
    assert set(picks.type_index) == set(range(6)) and np.bincount(picks.type_index).max() <= 2


def test_intensities_have_the_scale_of_the_challenge_and_protein_is_dark() -> None:
    dark, _ = make_phantom(SMALL, seed=0)
    assert dark.voxels.dtype == np.float32 and dark.voxels.shape == SMALL.shape_zyx
    assert dark.voxels.mean() == pytest.approx(5.3e-8, abs=1e-10)
    assert dark.voxels.std() == pytest.approx(7.2e-6, rel=1e-4)
    bright, _ = make_phantom(dataclasses.replace(SMALL, imaging=Imaging(dark_protein=False)), seed=0)
    np.testing.assert_allclose(dark.voxels - 5.3e-8, 5.3e-8 - bright.voxels, atol=1e-11)
    clear, picks = make_phantom(dataclasses.replace(SMALL, imaging=CLEAR, difficulty=0), seed=0)
    ribosomes = np.round(clear.grid.to_voxel(picks.of_type(2))).astype(int)
    assert len(ribosomes) and np.all(clear.voxels[tuple(ribosomes.T)] < 5.3e-8)


def test_difficulty_adds_noise_and_crowding_and_moves_no_particle() -> None:
    made = [make_phantom(dataclasses.replace(SMALL, difficulty=d), seed=2) for d in (0, 0.5, 1, 2, 4)]
    likeness = [np.corrcoef(made[0][0].voxels.ravel(), v.voxels.ravel())[0, 1] for v, _ in made]
    assert np.all(np.diff(likeness) < 0)
    for _, picks in made[1:]:
        np.testing.assert_array_equal(picks.xyz_angstrom, made[0][1].xyz_angstrom)
    grid = VoxelGrid(shape_zyx=(100, 200, 200), spacing_zyx_angstrom=(10, 10, 10))
    crowds = [
        make_scene(grid, CZII_TYPES, np.random.SeedSequence(0), crowding=d, clearance=1).crowders for d in (0, 1, 3)
    ]
    assert len(crowds[0]) == 0 < len(crowds[1]) < len(crowds[2])


def test_crowders_and_membranes_touch_no_particle() -> None:
    grid = VoxelGrid(shape_zyx=(184, 300, 300), spacing_zyx_angstrom=(10, 10, 10))
    scene = make_scene(grid, CZII_TYPES, np.random.SeedSequence(5), crowding=1, clearance=1)
    particles = scene.zyx_voxel * 10
    radii = np.array([t.radius_angstrom for t in CZII_TYPES])[scene.type_index]
    assert scene.membranes and scene.crowders
    for crowder in scene.crowders:
        away = np.linalg.norm(particles - crowder.zyx_angstrom, axis=1)
        assert np.all(away >= radii + crowder.radius_angstrom)
    for membrane in scene.membranes:
        surface, patch = membrane.distances(particles)
        assert np.all((surface > radii) | (patch > membrane.patch_radius_angstrom + radii))


def test_one_seed_is_one_dataset_and_runs_do_not_depend_on_their_number(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(SMALL, shape_zyx=(16, 40, 44))
    few = write_dataset(tmp_path / "few", config, seed=4, runs=1)
    many = write_dataset(tmp_path / "many", config, seed=4, runs=2, test_runs=1)
    first, second, test = (open_volume(r.volume_path).load() for r in many)
    np.testing.assert_array_equal(open_volume(few[0].volume_path).load(), first)
    assert not np.array_equal(first, second) and not np.array_equal(first, test)
    again, picks = make_phantom(config, seed=(4, 0, 1))
    np.testing.assert_array_equal(again.voxels, second)
    np.testing.assert_array_equal(read_run_picks(many[1], CZII_TYPES).xyz_angstrom, picks.xyz_angstrom)
    assert not np.array_equal(make_phantom(config, seed=5)[0].voxels, again.voxels)


def test_a_dataset_is_found_again(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(SMALL, shape_zyx=(16, 40, 44))
    written = write_dataset(tmp_path, config, runs=2, test_runs=1)
    assert find_runs(tmp_path, split="train") + find_runs(tmp_path, split="test") == written
    assert [r.name for r in written] == ["PH_000", "PH_001", "PT_000"] and written[2].picks_folder is None
    relative = "train/static/ExperimentRuns/PH_000/VoxelSpacing10.000/denoised.zarr"
    assert written[0].volume_path == tmp_path / relative
    for run in written[:2]:
        volume = open_volume(run.volume_path)
        assert volume.grid == config.grid
        picks = read_run_picks(run, CZII_TYPES)
        assert volume.grid.contains(volume.grid.to_voxel(picks.xyz_angstrom)).all()
    assert len(read_copick_folder(tmp_path / "test-truth", CZII_TYPES)["PT_000"])


def test_nothing_is_overwritten_without_force(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(SMALL, shape_zyx=(8, 16, 16))
    write_dataset(tmp_path, config, runs=2)
    real = tmp_path / "train" / "static" / "ExperimentRuns" / "TS_5_4"
    real.mkdir()
    with pytest.raises(InputError, match="holds train already; choose another folder, or pass --force"):
        write_dataset(tmp_path, config, runs=1)
    write_dataset(tmp_path, config, runs=1, force=True)
    assert sorted(p.name for p in real.parent.iterdir()) == ["PH_000", "TS_5_4"]
    overlay = tmp_path / "train" / "overlay" / "ExperimentRuns"
    assert [p.name for p in overlay.iterdir()] == ["PH_000"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape_zyx": (4, 60, 60)}, "8 or more"),
        ({"spacing_angstrom": 0.0}, "above 0"),
        ({"difficulty": -1.0}, "difficulty is -1"),
        ({"difficulty": float("nan")}, "difficulty is nan"),
        ({"clearance": -1.0}, "clearance"),
        ({"types": ()}, "at least one"),
        ({"types": (CZII_TYPES[0], CZII_TYPES[0])}, "named twice"),
    ],
)
def test_senseless_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SMALL, **change)


def test_senseless_numbers_of_runs_seed_and_tilts(tmp_path: pathlib.Path) -> None:
    for runs, test_runs in ((0, 0), (-1, 2)):
        with pytest.raises(InputError, match="expected at least one run"):
            write_dataset(tmp_path, SMALL, runs=runs, test_runs=test_runs)
    with pytest.raises(InputError, match="the seed is -1"):
        write_dataset(tmp_path, SMALL, seed=-1)
    with pytest.raises(InputError, match="tilt range"):
        Imaging(tilt_range_degree=0)


def test_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"pickable_objects": [{"name": "proteasome", "radius": 80}]}')
    out = tmp_path / "out"
    arguments = [str(out), "--runs", "1", "--test-runs", "1", "--shape", "16", "32", "32", "--particles", str(config)]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "Writing 1 training and 1 test runs of 16×32×32 voxels" in told and "Wrote 2 runs" in told
    assert str(out / "test-truth" / "ExperimentRuns" / "PT_000" / "Picks") in told
    assert (out / "train/overlay/ExperimentRuns/PH_000/Picks/proteasome.json").is_file()
    assert main(arguments) == 2
    assert "error: " in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples:" in capsys.readouterr().out


def test_output_below_a_file_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_dataset(tmp_path / "file", dataclasses.replace(SMALL, shape_zyx=(8, 16, 16)), runs=1)
