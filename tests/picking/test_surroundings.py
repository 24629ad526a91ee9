"""What is measured around picks is what brute force says, and it goes through the formats that hold it."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxcryo.domain import CZII_TYPES, MEASURES, Picks, Volume, VoxelGrid, concatenate_picks
from jaxcryo.picking.places import CLOSEST_SHARE
from jaxcryo.picking.surroundings import with_surroundings
from jaxcryo.picks.formats import Geometries, TomogramGeometry, format_of, losses, read_picks, write_picks

GRID = VoxelGrid(shape_zyx=(40, 50, 60), spacing_zyx_angstrom=(10.0, 10.0, 10.0))


@pytest.fixture
def picks() -> Picks:
    rng = np.random.default_rng(2)
    xyz = np.concatenate([rng.uniform(20, 380, (40, 3)), rng.uniform(20, 380, (40, 3))])
    xyz[40:60] = xyz[:20] + rng.normal(0, 8, (20, 3))  # of another type at the same places
    return Picks(
        run="TS_1",
        types=CZII_TYPES,
        xyz_angstrom=xyz,
        type_index=np.repeat(np.array([0, 2]), 40),
        score=rng.uniform(0.1, 1, 80),
        probability=rng.uniform(0, 1, 80),
    )


def test_rivals_and_border(picks: Picks) -> None:
    seen = with_surroundings(picks, GRID).measured
    assert set(seen) == {"second_type", "second_score", "border_angstrom"}
    radii = np.array([t.radius_angstrom for t in CZII_TYPES])[picks.type_index]
    away = np.linalg.norm(picks.xyz_angstrom[:, None] - picks.xyz_angstrom[None], axis=2)
    rival = (away < CLOSEST_SHARE * (radii[:, None] + radii)) & (picks.type_index[:, None] != picks.type_index)
    assert rival.any(axis=1).sum() >= 30
    for i, others in enumerate(rival):
        best = np.where(others, picks.score, -1).max()
        if others.any():
            assert seen["second_score"][i] == best and seen["second_type"][i] == 2 - picks.type_index[i]
        else:
            assert np.isnan(seen["second_score"][i]) and np.isnan(seen["second_type"][i])
    corners = GRID.to_angstrom(np.array([[-0.5] * 3, [n - 0.5 for n in GRID.shape_zyx]]))
    room = np.minimum(picks.xyz_angstrom - corners[0], corners[1] - picks.xyz_angstrom).min(axis=1)
    np.testing.assert_allclose(seen["border_angstrom"], room, atol=1e-9)


def test_a_plane_of_a_mask_is_as_far_as_it_is(picks: Picks) -> None:
    voxels = np.zeros(GRID.shape_zyx, np.float32)
    voxels[33:] = 1  # beyond the slices that are read at once
    seen = with_surroundings(picks, GRID, Volume(name="mask", voxels=voxels, grid=GRID)).measured
    plane = GRID.to_angstrom([[32.5, 0, 0]])[0, 2]
    away = np.abs(picks.xyz_angstrom[:, 2] - plane)
    # The nearest middle of a face is at most half a face's diagonal aside.
    assert np.all(seen["surface_angstrom"] >= away - 1e-9)
    assert np.all(seen["surface_angstrom"] <= np.hypot(away, 10 / np.sqrt(2)) + 1e-9)
    everywhere = Volume(name="mask", voxels=np.ones(GRID.shape_zyx, np.float32), grid=GRID)
    assert "surface_angstrom" not in with_surroundings(picks, GRID, everywhere).measured


@pytest.mark.parametrize("name", ["csv", "copick", "napari", "relion4", "relion5"])
def test_files_hold_it(picks: Picks, tmp_path: pathlib.Path, name: str) -> None:
    voxels = np.zeros(GRID.shape_zyx, np.float32)
    voxels[33:] = 1
    whole = with_surroundings(picks, GRID, Volume(name="mask", voxels=voxels, grid=GRID))
    assert set(whole.measured) == set(MEASURES)
    geometry = TomogramGeometry(
        pixel_size_angstrom=1.0, unbinned_size_xyz=(600, 500, 400), voxel_spacing_xyz_angstrom=(10.0,) * 3
    )
    path = tmp_path / ("a.csv" if name == "csv" else "out")
    geometries = Geometries(default=geometry)
    write_picks({"TS_1": whole}, path, format_of(name), geometries)
    again = read_picks(path, CZII_TYPES, geometries)["TS_1"]
    order = np.lexsort(again.xyz_angstrom.T), np.lexsort(whole.xyz_angstrom.T)
    a, b = again.select(order[0]), whole.select(order[1])
    np.testing.assert_allclose(a.xyz_angstrom, b.xyz_angstrom, atol=1e-6)
    np.testing.assert_allclose(a.probability, b.probability, rtol=1e-12)
    for measure in MEASURES:
        np.testing.assert_allclose(a.measured[measure], b.measured[measure], rtol=1e-12, err_msg=measure)
    assert not losses({"TS_1": whole}, format_of(name))
    assert any(
        "80 picks" in phrase and "distances" in phrase for phrase in losses({"TS_1": whole}, format_of("dynamo"))
    )


def test_selected_and_joined_it_stays_with_its_pick(picks: Picks) -> None:
    whole = with_surroundings(picks, GRID)
    plain = dataclasses.replace(picks, run="TS_1")
    joined = concatenate_picks([whole.select(np.arange(5)), plain.select(np.arange(5, 9))], "TS_1", CZII_TYPES)
    np.testing.assert_array_equal(joined.measured["border_angstrom"][:5], whole.measured["border_angstrom"][:5])
    assert np.isnan(joined.measured["border_angstrom"][5:]).all()
