"""What is measured of a tomogram is what it was made with, and phantoms drawn like it measure the same."""

from __future__ import annotations

import dataclasses
import pathlib

import mrcfile
import numpy as np
import pytest

from jaxcryo.cli.phantom import main
from jaxcryo.domain import CZII_TYPES, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.phantom import DrawConfig, draw_phantom
from jaxcryo.phantom.likeness import like, like_files, measure
from jaxcryo.phantom.settings import REAL_CENTER, REAL_CONTENTS, particles_alone
from jaxcryo.tomogram.volumes import open_volume

SHAPE = (64, 96, 96)
BOX = dataclasses.replace(
    REAL_CENTER,
    tilt_range_degree=(60.0, 60.0),
    tilt_fade_degree=(90.0, 90.0),
    axis_degree=(20.0, 20.0),
    resolution_angstrom=(24.0, 24.0),
    scale=(3.0, 3.0),
    offset=(2.0, 2.0),
    shrinkage=(0.0, 0.0),
)


def phantom(config: DrawConfig, seed: int = 0) -> Volume:
    return Volume(name=f"P{seed}", voxels=draw_phantom(config, seed, SHAPE).voxels, grid=config.grid(SHAPE))


@pytest.fixture(scope="module")
def boxed() -> DrawConfig:
    return DrawConfig(imaging=BOX, contents=REAL_CONTENTS, center_share=0.0)


@pytest.mark.slow
def test_wedge_axis_and_scale_are_found(boxed: DrawConfig) -> None:
    found = measure(phantom(boxed))
    assert found.tilt_range_degree == pytest.approx(60, abs=5) and found.tilt_fade_degree > 60
    assert found.axis_degree == pytest.approx(20, abs=5)
    assert found.scale == pytest.approx(3, rel=0.1) and found.offset == pytest.approx(2, abs=0.2)
    center = measure(phantom(dataclasses.replace(boxed, imaging=REAL_CENTER)))
    assert center.tilt_range_degree == pytest.approx(46, abs=5) and 24 < center.tilt_fade_degree < 45
    assert abs(center.axis_degree) < 6 and center.scale == pytest.approx(4.5e-6, rel=0.1)


@pytest.mark.slow
def test_a_finer_tomogram_is_found_finer(boxed: DrawConfig) -> None:
    smooth = dataclasses.replace(BOX, resolution_angstrom=(50.0, 50.0))
    fine, coarse = measure(phantom(boxed)), measure(phantom(dataclasses.replace(boxed, imaging=smooth)))
    assert coarse.filters.resolution_angstrom > 1.3 * fine.filters.resolution_angstrom


@pytest.mark.slow
def test_phantoms_like_a_tomogram_measure_like_it(boxed: DrawConfig) -> None:
    volume = phantom(boxed)
    notes: list[str] = []
    config = like(DrawConfig(), [volume], note=notes.append)
    assert "P0: tilts to" in notes[0]
    again, first = measure(phantom(config, 1)), measure(volume)
    assert again.tilt_range_degree == pytest.approx(first.tilt_range_degree, abs=8)
    assert again.axis_degree == pytest.approx(first.axis_degree, abs=9)
    assert again.scale == pytest.approx(first.scale, rel=0.4)
    for low, high in (config.imaging.tilt_range_degree, config.imaging.resolution_angstrom, config.imaging.snr):
        assert 0 < low < high


def test_bright_tomograms_are_said(boxed: DrawConfig) -> None:
    volume = phantom(dataclasses.replace(boxed, contents=dataclasses.replace(REAL_CONTENTS, aggregates=(900, 900))))
    notes: list[str] = []
    like(DrawConfig(), [dataclasses.replace(volume, voxels=-volume.voxels)], note=notes.append)
    assert any("--invert" in n for n in notes)


def test_what_cannot_be_measured_is_refused() -> None:
    grid = VoxelGrid(shape_zyx=(16, 40, 40), spacing_zyx_angstrom=(10.0,) * 3)
    with pytest.raises(InputError, match="24 voxels"):
        measure(Volume(name="thin", voxels=np.zeros((16, 40, 40), np.float32), grid=grid))
    grid = dataclasses.replace(grid, shape_zyx=(40, 40, 40))
    with pytest.raises(InputError, match="cannot be measured"):
        measure(Volume(name="even", voxels=np.zeros((40, 40, 40), np.float32), grid=grid))
    noise = np.random.default_rng(0).standard_normal((40, 40, 40), np.float32)
    fine = dataclasses.replace(grid, spacing_zyx_angstrom=(8.0,) * 3)
    with pytest.raises(InputError, match="differ in voxel size"):
        like(DrawConfig(), [Volume(name="a", voxels=noise, grid=g) for g in (grid, fine)])


@pytest.fixture
def tomogram(boxed: DrawConfig, tmp_path: pathlib.Path) -> pathlib.Path:
    empty = dataclasses.replace(boxed, contents=particles_alone(REAL_CONTENTS), types=CZII_TYPES[:1])
    with mrcfile.new(tmp_path / "mine.mrc") as file:
        file.set_data(phantom(empty).voxels)
        file.voxel_size = 9.0
    return tmp_path / "mine.mrc"


@pytest.mark.slow
def test_particles_are_put_into_a_tomogram(tomogram: pathlib.Path) -> None:
    config = like_files(DrawConfig(types=CZII_TYPES[2:3]), [], [str(tomogram)])
    assert config.spacing_angstrom == pytest.approx(9.0) and config.backgrounds == (str(tomogram),)
    background = open_volume(tomogram).load()
    within = 0
    for seed in range(8):
        drawn = draw_phantom(config, seed, (32, 48, 48))
        np.testing.assert_array_equal(drawn.voxels, draw_phantom(config, seed, (32, 48, 48)).voxels)
        # Far from particles a phantom is a piece of the tomogram, but for scale: some row of it is found there.
        row = drawn.voxels[0, 0, :24] - drawn.voxels[0, 0, :24].mean()
        rows = np.lib.stride_tricks.sliding_window_view(background, 24, axis=2)
        rows = rows - rows.mean(axis=-1, keepdims=True)
        alike = (rows @ row) / (np.linalg.norm(rows, axis=-1) * np.linalg.norm(row) + 1e-12)
        within += int(alike.max() > 0.995)
    assert 2 <= within <= 7


def test_as_a_command(tomogram: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--runs", "1", "--shape", "24", "40", "40"]
    assert main([str(tmp_path / "out"), *small, "--like", str(tomogram)]) == 0
    told = capsys.readouterr().out
    assert "mine.mrc" in told or "mine:" in told
    assert "axis" in told and "9 Å" in told
    assert main([str(tmp_path / "two"), *small, "--like", str(tomogram), "--imaging", "simple"]) == 2
    assert "--imaging simple" in capsys.readouterr().err
