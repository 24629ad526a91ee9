"""Particle types from a copick config or a short file; what is unusable is refused with its place."""

from __future__ import annotations

import json
import pathlib

import pytest

from jaxcryo.domain import ParticleType
from jaxcryo.errors import InputError
from jaxcryo.project.particles import read_particles


def test_copick_config_gives_its_particles(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.json"
    objects = [
        {"name": "membrane", "is_particle": False, "label": 1},
        {"name": "proteasome", "is_particle": True, "label": 2, "radius": 70, "color": [1, 2, 3, 255],
         "metadata": {"score_weight": 2, "score_threshold": 0.25}},
    ]  # fmt: skip
    path.write_text(json.dumps({"pickable_objects": objects}))
    assert read_particles(path) == (
        ParticleType(name="proteasome", radius_angstrom=70, weight=2, threshold=0.25, color=(1, 2, 3)),
    )


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"pickable_objects": []}', '{"pickable_objects": [{"name": "a"}]}',
     '{"pickable_objects": [{"name": "a_b", "radius": 3}]}',
     '{"pickable_objects": [{"name": "a", "radius": 3}, {"name": "a", "radius": 4}]}'],
)  # fmt: skip
def test_unusable_copick_config_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError):
        read_particles(path)


def test_a_short_file_gives_its_particles_in_order(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "particles.toml"
    path.write_text(
        "[ribosome]\nradius_angstrom = 150\n[apo-ferritin]\nradius_angstrom = 60.5\nweight = 2\nthreshold = 0.25\n"
        "sigma_angstrom = 40\ncolor = [0, 255, 0]\n"
    )
    assert read_particles(path) == (
        ParticleType(name="ribosome", radius_angstrom=150),
        ParticleType(
            name="apo-ferritin", radius_angstrom=60.5, weight=2, threshold=0.25, sigma_angstrom=40, color=(0, 255, 0)
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no particle"),
        ("ribosome = 150", "'ribosome' "),
        ("[ribosome]", "ribosome: radius_angstrom is missing"),
        ('[ribosome]\nradius_angstrom = "150"', "'150' is not a number"),
        ("[ribosome]\nradius_angstrom = inf", "the radius is inf"),
        ("[ribosome]\nradius_angstrom = 150\nradios = 3", "radios is not a known field"),
        ("[ribosome]\nradius_angstrom = 150\nthreshold = nan", "the threshold is nan"),
        ("[ribosome]\nradius_angstrom = 150\ncolor = [1, 2, 999]", "color"),
        ('["../up"]\nradius_angstrom = 150', "without '_' and '/'"),
        ("[..]\nradius_angstrom = 1", "is not TOML"),
        ('[".."]\nradius_angstrom = 1', "without '/'"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("x" * 70000, "at most 65536 bytes"),
    ],
)
def test_unusable_short_files_are_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    path = tmp_path / "particles.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_particles(path)
