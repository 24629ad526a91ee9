"""Structures named in a particles' file, beads of a map, and phantoms beside planes, as commands."""

from __future__ import annotations

import pathlib

import mrcfile
import numpy as np
import pytest

from jaxcryo.cli.phantom import main
from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.phantom.beads import read_beads
from jaxcryo.phantom.comparison import planes_of
from jaxcryo.phantom.settings import config_for
from jaxcryo.picks.copick_json import read_copick_folder
from jaxcryo.project.particles import read_particles, read_structured_particles
from jaxcryo.tomogram.volumes import open_volume


@pytest.fixture
def ball(tmp_path: pathlib.Path) -> pathlib.Path:
    """A map of a ball of 40 Å."""
    axes = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), axis=-1) - 9.5
    with mrcfile.new(tmp_path / "ball.mrc") as file:
        file.set_data((1 / (1 + np.exp(2 * (np.linalg.norm(axes, axis=-1) - 8)))).astype(np.float32))
        file.voxel_size = 5.0
    return tmp_path / "ball.mrc"


def test_a_structure_is_named_beside_the_file_and_gives_the_radius(tmp_path: pathlib.Path, ball: pathlib.Path) -> None:
    particles = tmp_path / "particles.toml"
    particles.write_text('[ball]\nstructure = "ball.mrc"\n[ferritin]\nstructure = "6pxm"\nradius_angstrom = 60\n')
    asked: list[str] = []

    def measure(source: str) -> float:
        asked.append(source)
        return 44.0

    first, second = read_structured_particles(particles, measure=measure)
    assert asked == [str(ball)] and first.structure == str(ball) and first.type.radius_angstrom == 44.0
    assert second.structure == "6pxm" and second.type.radius_angstrom == 60
    with pytest.raises(InputError, match=r"ball: radius_angstrom is missing.*ball\.mrc"):
        read_particles(particles)
    particles.write_text('[ferritin]\nstructure = "6pxm"\nradius_angstrom = 60\n')
    assert read_particles(particles) == (ParticleType(name="ferritin", radius_angstrom=60),)
    config = tmp_path / "config.json"
    config.write_text('{"pickable_objects": [{"name": "ball", "metadata": {"structure": "ball.mrc"}}]}')
    (of_copick,) = read_structured_particles(config, measure=measure)
    assert of_copick.structure == str(ball) and of_copick.type.radius_angstrom == 44.0


def test_a_dataset_of_structures(
    tmp_path: pathlib.Path, ball: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    particles = tmp_path / "particles.toml"
    particles.write_text('[ball]\nstructure = "ball.mrc"\n[thing]\nradius_angstrom = 50\n')
    arguments = ["--runs", "1", "--shape", "24", "48", "56", "--particles", str(particles), "--difficulty", "0"]
    for out in ("a", "b"):
        assert main([str(tmp_path / out), *arguments]) == 0
    told = capsys.readouterr().out
    assert "ball.mrc" in told and "kDa" in told and "thing: no structure is named" in told and "globule of 50 Å" in told
    first, second = (open_volume(next((tmp_path / n).rglob("denoised.zarr"))).load() for n in ("a", "b"))
    np.testing.assert_array_equal(first, second)
    types = (ParticleType(name="ball", radius_angstrom=44), ParticleType(name="thing", radius_angstrom=50))
    picks = read_copick_folder(tmp_path / "a" / "train" / "overlay", types)["PH_000"]
    assert len(picks)


def test_a_map_becomes_a_table(ball: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "beads.csv"
    arguments = ["fit", str(ball), "--out", str(out), "--contour", "0.5", "--mass", "200"]
    assert main(arguments) == 0
    model = read_beads(out)
    assert model.total_kilodalton == pytest.approx(200, rel=0.01)
    assert model.radius_angstrom == pytest.approx(40, abs=8)
    assert "200 kDa" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "already exists" in capsys.readouterr().err
    assert main([*arguments, "--force", "--beads", "20"]) == 0
    assert len(read_beads(out).xyz_angstrom) <= 20


def test_planes_are_compared(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels = np.random.default_rng(0).standard_normal((40, 48, 48), np.float32)
    np.savez(tmp_path / "planes.npz", **planes_of(voxels))
    picture = tmp_path / "planes.png"
    arguments = [str(tmp_path / "planes.npz"), "--out", str(picture), "--phantoms", "1", "--size", "48"]
    assert main(["compare", *arguments]) == 0
    told = capsys.readouterr().out
    assert told.count("  given ") == told.count("  phantoms ") == 8 and picture.is_file()
    assert main(["compare", str(tmp_path / "none.npz")]) == 2


def test_configurations_of_datasets() -> None:
    assert config_for("real", 2.0).center_share == 1 and config_for("real", 2.0).harshness == 2
    assert config_for("stranger", 1.0).family == "stranger" and config_for("varied", 1.0).family == "house"
    assert config_for("real", 0.0).contents.fragments[1] < 0.1
    with pytest.raises(InputError, match="difficulty is -1"):
        config_for("real", -1.0)
