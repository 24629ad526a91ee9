"""Orientations that come in go out in every format that can hold them, and mean the same rotation in each."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxcryo.domain import CZII_TYPES, Picks, concatenate_picks
from jaxcryo.picks.formats import (
    Geometries,
    TomogramGeometry,
    format_of,
    losses,
    read_picks,
    writable_formats,
    write_picks,
)

TYPES = CZII_TYPES[:3]
GEOMETRIES = Geometries(
    default=TomogramGeometry(
        pixel_size_angstrom=1.5, unbinned_size_xyz=(4000, 4000, 1200), voxel_spacing_xyz_angstrom=(10, 10, 10)
    )
)
HOLDING = [name for name, f in writable_formats().items() if f.holds_orientations]


def make_picks(run: str = "TS_1", n: int = 30, seed: int = 0) -> Picks:
    rng = np.random.default_rng(seed)
    matrices = Rotation.random(n, rng=seed).as_matrix()
    matrices[0] = np.eye(3)
    matrices[1] = Rotation.from_euler("z", 30, degrees=True).as_matrix()  # a tilt of 0
    matrices[2] = Rotation.from_euler("y", 180, degrees=True).as_matrix()
    return Picks(
        run=run,
        types=TYPES,
        xyz_angstrom=rng.uniform(0, 1000, (n, 3)),
        type_index=np.sort(rng.integers(0, 3, n)),
        score=rng.uniform(size=n),
        orientation=matrices,
    )


def place(name: str) -> str:
    return "a.csv" if name == "csv" else "out"


@pytest.mark.parametrize("name", writable_formats())
def test_there_and_back(tmp_path: pathlib.Path, name: str) -> None:
    picks = {"TS_1": make_picks()}
    write_picks(picks, tmp_path / place(name) if name != "kaggle" else tmp_path / "a.csv", format_of(name), GEOMETRIES)
    again = read_picks(tmp_path / ("a.csv" if name == "kaggle" else place(name)), TYPES, GEOMETRIES)["TS_1"]
    assert any("orientations of 30 picks" in s for s in losses(picks, format_of(name))) == (name not in HOLDING)
    if name not in HOLDING:
        assert again.orientation is None
        return
    order, back = (np.lexsort((*p.xyz_angstrom.T.round(6), p.type_index)) for p in (picks["TS_1"], again))
    assert again.orientation is not None and picks["TS_1"].orientation is not None
    np.testing.assert_allclose(again.orientation[back], picks["TS_1"].orientation[order], atol=1e-9)


@pytest.mark.parametrize("first", HOLDING)
@pytest.mark.parametrize("second", HOLDING)
def test_from_each_to_each(tmp_path: pathlib.Path, first: str, second: str) -> None:
    picks = {"TS_1": make_picks(n=5)}
    write_picks(picks, tmp_path / "1" / place(first), format_of(first), GEOMETRIES)
    middle = read_picks(tmp_path / "1" / place(first), TYPES, GEOMETRIES)
    write_picks(middle, tmp_path / "2" / place(second), format_of(second), GEOMETRIES)
    end = read_picks(tmp_path / "2" / place(second), TYPES, GEOMETRIES)["TS_1"]
    assert end.orientation is not None and picks["TS_1"].orientation is not None
    np.testing.assert_allclose(end.xyz_angstrom, picks["TS_1"].xyz_angstrom, atol=1e-8)
    np.testing.assert_allclose(end.orientation, picks["TS_1"].orientation, atol=1e-9)


def test_relion_and_dynamo_mean_one_rotation(tmp_path: pathlib.Path) -> None:
    """Two sets of angles that give identical reconstructions in the two programs (the tests of eulerangles)."""
    (tmp_path / "ribosome.star").write_text(
        "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n_rlnTomoName #4\n"
        "_rlnAngleRot #5\n_rlnAngleTilt #6\n_rlnAnglePsi #7\n10 20 30 TS_1 137.7 1.1777 42.727\n"
    )
    cells = ["0"] * 35
    cells[6:9], cells[19], cells[23:26] = ["-47.273", "1.1777", "-132.3"], "1", ["1", "2", "3"]
    (tmp_path / "ribosome.tbl").write_text(" ".join(cells) + "\n")
    (tmp_path / "ribosome.doc").write_text("1 TS_1.mrc\n")
    relion, dynamo = (
        read_picks(tmp_path / f"ribosome{s}", TYPES, GEOMETRIES)["TS_1"].orientation for s in (".star", ".tbl")
    )
    assert relion is not None and dynamo is not None
    np.testing.assert_allclose(relion, dynamo, atol=1e-9)


def test_a_particle_of_relion_points_where_its_angles_say(tmp_path: pathlib.Path) -> None:
    """RELION's rot and tilt are the direction that the reference's z axis is seen from: tilt 90 and rot 0 lay it along
    x. `Euler_angles2matrix` turned round gives that direction in the tomogram."""
    (tmp_path / "ribosome.star").write_text(
        "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnCoordinateZ #3\n_rlnTomoName #4\n"
        "_rlnAngleRot #5\n_rlnAngleTilt #6\n_rlnAnglePsi #7\n1 1 1 TS_1 0 90 180\n1 1 1 TS_1 0 90 90\n"
    )
    orientation = read_picks(tmp_path / "ribosome.star", TYPES, GEOMETRIES)["TS_1"].orientation
    assert orientation is not None
    np.testing.assert_allclose(orientation @ [0, 0, 1], [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_relion_composes_subtomogram_and_particle(tmp_path: pathlib.Path) -> None:
    """`ParticleSet::getMatrix3x3` is A_subtomogram · A_particle, each the inverse of rot, tilt, psi about z, y, z."""
    names = [f"rln{kind}{a}" for kind in ("TomoSubtomogram", "Angle") for a in ("Rot", "Tilt", "Psi")]
    (tmp_path / "ribosome.star").write_text(
        "data_particles\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n_rlnTomoName\n"
        + "".join(f"_{n}\n" for n in names)
        + "1 1 1 TS_1 10 20 30 40 50 60\n"
    )
    orientation = read_picks(tmp_path / "ribosome.star", TYPES, GEOMETRIES)["TS_1"].orientation
    a, b = (Rotation.from_euler("ZYZ", v, degrees=True).as_matrix().T for v in ([10, 20, 30], [40, 50, 60]))
    assert orientation is not None
    np.testing.assert_allclose(orientation[0], a @ b, atol=1e-12)


def test_copick_puts_a_translation_on_the_position(tmp_path: pathlib.Path) -> None:
    """location + translation of transformation_ (copick, docs/geometry.md, 2.3); the rotation is the orientation."""
    rotation = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, [5, -7, 11]
    folder = tmp_path / "ExperimentRuns" / "TS_1" / "Picks"
    folder.mkdir(parents=True)
    point = {"location": {"x": 100, "y": 200, "z": 300}, "transformation_": matrix.tolist()}
    plain = {"location": {"x": 1, "y": 2, "z": 3}, "transformation_": None}
    (folder / "a_1_ribosome.json").write_text(json.dumps({"points": [point, plain]}))
    picks = read_picks(tmp_path, TYPES)["TS_1"]
    assert picks.xyz_angstrom.tolist() == [[105, 193, 311], [1, 2, 3]] and picks.orientation is not None
    np.testing.assert_allclose(picks.orientation, [rotation, np.eye(3)])
    write_picks({"TS_1": picks}, tmp_path / "out", format_of("copick"))
    written = json.loads((tmp_path / "out/ExperimentRuns/TS_1/Picks/jaxcryo_0_ribosome.json").read_text())
    assert written["trust_orientation"] is True
    np.testing.assert_allclose(written["points"][0]["transformation_"], [*np.c_[rotation, [0, 0, 0]], [0, 0, 0, 1]])


def test_a_matrix_that_is_no_rotation(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "ExperimentRuns" / "TS_1" / "Picks"
    folder.mkdir(parents=True)
    turned = np.diag([1, -1, -1, 1]).tolist()
    points = [
        {"location": {"x": 1, "y": 2, "z": 3}, "transformation_": m} for m in (np.diag([2, 1, 1, 1]).tolist(), turned)
    ]
    (folder / "ribosome.json").write_text(json.dumps({"points": points}))
    notes: list[str] = []
    orientation = read_picks(tmp_path, TYPES, note=notes.append)["TS_1"].orientation
    assert orientation is not None and re.search(r"\b1 points .*rotation", notes[0])
    np.testing.assert_array_equal(orientation, [np.eye(3), np.diag([1, -1, -1])])


def test_probabilities(tmp_path: pathlib.Path) -> None:
    picks = dataclasses.replace(make_picks(n=4), probability=np.array([0.1, 0.5, 0.9, 1.0]))
    for name in ("csv", "napari"):
        write_picks({"TS_1": picks}, tmp_path / name / place(name), format_of(name), GEOMETRIES)
        again = read_picks(tmp_path / name / place(name), TYPES, GEOMETRIES)["TS_1"]
        assert again.probability is not None and again.probability.tolist() == [0.1, 0.5, 0.9, 1.0]
    assert "the probabilities of 4 picks" in losses({"TS_1": picks}, format_of("dynamo"))
    assert picks.select(np.array([2])).probability is not None


def test_picks_joined_keep_what_they_have() -> None:
    a, b = make_picks(n=4), dataclasses.replace(make_picks(n=3), orientation=None, score=None)
    both = concatenate_picks([a, b], "TS_1", TYPES)
    assert both.score is None and both.orientation is not None and a.orientation is not None
    np.testing.assert_array_equal(both.orientation, [*a.orientation, *[np.eye(3)] * 3])
