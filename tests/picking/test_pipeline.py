"""Particles planted in a volume come back at their coordinates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import ParticleType, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.project.mask import inside
from jaxcryo.runtime.opened import OpenModel

TYPES = (
    ParticleType(name="small", radius_angstrom=60.0, threshold=0.5),
    ParticleType(name="large", radius_angstrom=150.0, threshold=0.6),
)
GRID = VoxelGrid(shape_zyx=(40, 56, 60), spacing_zyx_angstrom=(10.012444, 10.012444, 10.012444))
CONFIG = InferenceConfig(refine=False)
SMALL = {(5, 8, 50): 1.0, (6, 30, 12): 0.9, (30, 45, 44): 0.8, (39, 0, 59): 0.7, (20, 20, 20): 0.45}
LARGE = {(12, 44, 30): 1.0, (28, 10, 8): 0.75, (28, 18, 8): 0.7}  # the last two: one particle, two maxima


def gaussians(centers: Mapping[tuple[float, float, float], float], sigma: float) -> np.ndarray:
    zyx = np.indices(GRID.shape_zyx)
    volume = np.zeros(GRID.shape_zyx)
    for center, height in centers.items():
        distance2 = sum((i - c) ** 2 for i, c in zip(zyx, center, strict=True))
        volume = np.maximum(volume, height * np.exp(-distance2 / (2 * sigma**2)))
    return volume.astype(np.float32)


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Small particles are bright, large ones are dark."""
    return Volume(name="TS_1", voxels=gaussians(SMALL, 2.5) - gaussians(LARGE, 2.5), grid=GRID)


def bright_and_dark(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
    return jnp.stack([windows, -windows], axis=1)


def engine_of(patch: tuple[int, int, int] = (16, 24, 24), stride: tuple[int, int, int] = (8, 12, 12)) -> OpenModel:
    return OpenModel(
        name="fake",
        patch_zyx=patch,
        stride_zyx=stride,
        batch=8,
        classes=2,
        predict=bright_and_dark,
        intensity=IntensityConfig(mean=0.0, std=1.0),
    )


def test_planted_particles_come_back_at_their_coordinates(volume: Volume) -> None:
    engines = [engine_of(), engine_of((32, 24, 24), (16, 12, 12))]
    picks = find_picks(volume, engines, TYPES, config=CONFIG)
    assert picks.run == "TS_1"
    assert picks.types == TYPES
    small = sorted((c for c, height in SMALL.items() if height > 0.5), key=lambda c: -SMALL[c])
    np.testing.assert_allclose(picks.of_type(0), GRID.to_angstrom(small))
    np.testing.assert_allclose(picks.of_type(1), GRID.to_angstrom([(12, 44, 30), (28, 10, 8)]))
    np.testing.assert_allclose(picks.score, [1.0, 0.9, 0.8, 0.7, 1.0, 0.75], atol=1e-4)


def test_refined_picks_are_where_particles_are_between_voxels() -> None:
    centers = {(10.3, 12.0, 20.4): 1.0, (25.5, 40.2, 33.9): 0.9, (15.8, 30.6, 45.1): 0.8}
    volume = Volume(name="TS_1", voxels=gaussians(centers, 2.5), grid=GRID)
    errors = []
    for refine in (False, True):
        config = dataclasses.replace(CONFIG, refine=refine)
        picks = find_picks(volume, [engine_of()], TYPES, config=config)
        errors.append(np.abs(picks.of_type(0) - GRID.to_angstrom(list(centers))).max() / GRID.spacing_angstrom)
    assert errors[0] > 0.35
    assert errors[1] < 0.1


def test_at_the_rim_a_refined_pick_stays_on_its_voxel() -> None:
    volume = Volume(name="TS_1", voxels=gaussians({(0.0, 30.0, 59.0): 1.0}, 2.5), grid=GRID)
    config = dataclasses.replace(CONFIG, refine=True)
    picks = find_picks(volume, [engine_of()], TYPES, config=config)
    np.testing.assert_allclose(picks.of_type(0), GRID.to_angstrom([(0, 30, 59)]))


def test_a_merge_radius_of_zero_keeps_both_maxima(volume: Volume) -> None:
    picks = find_picks(volume, [engine_of()], TYPES, config=dataclasses.replace(CONFIG, merge_radius=0.0))
    assert len(picks.of_type(1)) == 3


def test_a_floor_takes_all_and_thresholds_can_follow(volume: Volume) -> None:
    direct = find_picks(volume, [engine_of()], TYPES, config=CONFIG)
    swept = find_picks(volume, [engine_of()], TYPES, config=CONFIG, floor=0.05)
    assert len(swept) > len(direct)
    assert swept.score is not None
    thresholds = np.array([t.threshold for t in TYPES])
    above = swept.select(swept.score > thresholds[swept.type_index])
    np.testing.assert_array_equal(above.xyz_angstrom, direct.xyz_angstrom)
    np.testing.assert_array_equal(above.type_index, direct.type_index)


def test_the_heatmap_is_shown_slab_by_slab(volume: Volume) -> None:
    seen: list[tuple[int, np.ndarray]] = []
    engines = [engine_of(), engine_of((32, 24, 24), (16, 12, 12))]
    find_picks(volume, engines, TYPES, config=CONFIG, on_slab=lambda s: seen.append((s.z_start, np.asarray(s.heatmap))))
    assert [z for z, _ in seen] == np.cumsum([0, *(h.shape[1] for _, h in seen[:-1])]).tolist()
    whole = np.concatenate([h for _, h in seen], axis=1)
    np.testing.assert_allclose(whole, [volume.voxels, -volume.voxels], atol=1e-5)


def test_picks_are_ordered_by_type_and_score(volume: Volume) -> None:
    picks = find_picks(volume, [engine_of()], TYPES, config=CONFIG, floor=0.01)
    assert picks.score is not None
    keys = list(zip(picks.type_index.tolist(), (-picks.score).tolist(), strict=True))
    assert keys == sorted(keys)


def test_nothing_above_the_threshold_is_no_picks(volume: Volume) -> None:
    assert len(find_picks(volume, [engine_of()], TYPES, config=CONFIG, floor=2.0)) == 0


def test_engines_and_types_must_agree(volume: Volume) -> None:
    with pytest.raises(InputError, match=r"\b2\b.*\b1\b.*small"):
        find_picks(volume, [engine_of()], TYPES[:1], config=CONFIG)


@pytest.mark.parametrize("spacing", [10.012444, 15.0])
def test_windows_outside_of_a_mask_are_left_out_and_nothing_changes_inside(volume: Volume, spacing: float) -> None:
    shape = tuple(round(n * GRID.spacing_angstrom / spacing) for n in GRID.shape_zyx)
    voxels = np.zeros(shape, np.int8)
    voxels[: shape[0] // 2, : shape[1] // 3, shape[2] // 2 :] = 1
    voxels[shape[0] // 2 + 2, shape[1] // 2 + 1, 0] = 1
    grid = VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=(spacing,) * 3).in_frame_of(GRID)
    mask = Volume(name="mask", voxels=voxels, grid=grid)
    noisy = dataclasses.replace(
        volume, voxels=volume.voxels + np.random.default_rng(0).normal(size=GRID.shape_zyx).astype(np.float32) * 0.1
    )
    config = dataclasses.replace(CONFIG, merge_radius=0.0)
    engines = [engine_of(), engine_of((32, 24, 24), (16, 12, 12))]
    told: list[str] = []
    seen: list[tuple[int, int]] = []
    masked = find_picks(noisy, engines, TYPES, config=config, floor=0.1, mask=mask, note=told.append,
                        on_windows=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert mask.grid.in_frame_of(GRID) == grid
    every = inside(find_picks(noisy, engines, TYPES, config=config, floor=0.1), mask)
    assert len(every) > 10
    np.testing.assert_array_equal(masked.xyz_angstrom, every.xyz_angstrom)
    np.testing.assert_allclose(masked.score, every.score, rtol=1e-5)
    counts = [[int(w) for w in t.split() if w.isdigit()] for t in told]
    assert all(0 < left < count for left, count in counts)
    assert seen[-1] == (sum(c - n for n, c in counts),) * 2


def test_a_mask_of_nothing_computes_nothing(volume: Volume) -> None:
    mask = Volume(name="mask", voxels=np.zeros(GRID.shape_zyx, np.int8), grid=GRID)
    calls: list[int] = []
    engine = engine_of()
    picks = find_picks(volume, [engine], TYPES, config=CONFIG, mask=mask, on_windows=lambda d, t: calls.append(d))
    assert len(picks) == 0 and not calls
