"""Samples: picks stay on their voxels through every augmentation, windows lie in their volumes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxcryo.config import AugmentConfig, CropConfig, IntensityConfig, TargetConfig
from jaxcryo.data.augment import augment
from jaxcryo.data.collection import Collection, collect, epoch_grid, rows_of_step
from jaxcryo.data.samples import choose_window, cut_windows, draw_samples, sample_keys
from jaxcryo.data.streaming import StreamedWindows
from jaxcryo.domain import CZII_TYPES, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError

PATCH = (16, 64, 64)
ALWAYS = AugmentConfig(
    warp_probability=1, flip_x_probability=0.5, flip_y_probability=0.5, flip_z_probability=0.5,
    intensity_probability=0, mixup_probability=0,
)  # fmt: skip


def blob(center: np.ndarray, shape: tuple[int, int, int], sigma: float = 2.0) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.exp(-0.5 * (((grid - center) / sigma) ** 2).sum(-1)).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
def test_a_pick_moves_with_its_density(seed: int) -> None:
    center = np.array([7.3, 38.2, 27.6])
    window, picks = augment(
        jnp.asarray(blob(center, PATCH)), jnp.asarray(center[None], jnp.float32), key=jax.random.key(seed),
        config=ALWAYS,
    )  # fmt: skip
    found = ndimage.center_of_mass(np.asarray(window))
    np.testing.assert_allclose(found, picks[0], atol=0.05)


def test_no_augmentation_is_the_identity() -> None:
    off = AugmentConfig(warp_probability=0, flip_x_probability=0, intensity_probability=0)
    window = jax.random.normal(jax.random.key(0), PATCH)
    same, picks = augment(window, jnp.array([[1.0, 2, 3]]), key=jax.random.key(1), config=off)
    np.testing.assert_allclose(same, window, atol=1e-6)
    np.testing.assert_allclose(picks, [[1, 2, 3]], atol=1e-4)


def test_warp_equals_scipy_s_with_zeros_outside() -> None:
    only = dataclasses.replace(ALWAYS, flip_x_probability=0, flip_y_probability=0, flip_z_probability=0)
    window = jax.random.normal(jax.random.key(0), PATCH)
    corners = jnp.array([[0.0, 0, 0], [0, 0, 10], [0, 10, 0]])
    warped, moved = augment(window, corners, key=jax.random.key(3), config=only)
    forward = np.stack([(moved[2] - moved[0])[1:] / 10, (moved[1] - moved[0])[1:] / 10], axis=1)
    inverse = np.linalg.inv(forward)
    for z in (0, 9):
        expected = ndimage.affine_transform(
            np.asarray(window[z], np.float64), inverse, offset=-inverse @ np.asarray(moved[0][1:]), order=1,
            mode="grid-constant",
        )  # fmt: skip
        np.testing.assert_allclose(warped[z], expected, atol=2e-3)


def test_brightness_and_contrast() -> None:
    config = AugmentConfig(warp_probability=0, flip_x_probability=0, intensity_probability=1)
    window = jax.random.normal(jax.random.key(0), PATCH)
    changed, _ = augment(window, jnp.zeros((1, 3)), key=jax.random.key(1), config=config)
    slope, offset = np.polyfit(np.asarray(window).ravel(), np.asarray(changed).ravel(), 1)
    assert 0.7 <= slope <= 1.3 and abs(offset) <= 0.3 and (slope, offset) != (1, 0)


@pytest.fixture(scope="module")
def collection() -> Collection:
    rng = np.random.default_rng(0)
    volumes, picks = [], []
    for i, shape in enumerate([(40, 96, 96), (20, 64, 120)]):
        grid = VoxelGrid(shape_zyx=shape, spacing_zyx_angstrom=(10.0,) * 3)
        volumes.append(Volume(name=f"r{i}", voxels=rng.normal(size=shape).astype(np.float32), grid=grid))
        xyz = rng.uniform(0, 10, (30, 3)) * shape[::-1]
        picks.append(Picks(run=f"r{i}", types=CZII_TYPES, xyz_angstrom=xyz, type_index=rng.integers(0, 3, 30)))
    return collect(volumes, picks, IntensityConfig(rule="tomogram"), PATCH)


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_windows_lie_in_their_volume(collection: Collection, near: float) -> None:
    rows = epoch_grid([(40, 96, 96), (20, 64, 120)], PATCH, CropConfig())
    choose = jax.jit(
        lambda row, key: choose_window(collection, row, key=key, patch_zyx=PATCH, config=CropConfig(near_pick=near))
    )
    places = np.array([choose(rows[i % len(rows)], jax.random.key(i)) for i in range(60)])
    shapes = np.asarray(collection.shapes_zyx)[places[:, 0]]
    assert (places[:, 1:] >= 0).all() and (places[:, 1:] + PATCH <= shapes).all()
    assert set(places[:, 0]) == {0, 1}
    if near:
        picks = np.asarray(collection.picks_zyx_voxel)[places[:, 0]] - places[:, None, 1:]
        assert ((picks >= -0.51) & (picks <= np.array(PATCH) - 0.49)).all(-1).any(-1).all()


@pytest.mark.slow
def test_sample_shows_the_picks_of_its_window(collection: Collection) -> None:
    off = AugmentConfig(warp_probability=0, flip_x_probability=0, intensity_probability=0)
    sigma = np.full(6, 2.0, np.float32)
    windows, targets, places = draw_samples(
        collection, jnp.array([[1, 2, 0, 30]]), keys=jax.random.split(jax.random.key(4), 1), patch_zyx=PATCH,
        sigma_voxel=sigma,
        crop=CropConfig(jitter=0), augmentation=off, target=TargetConfig(),
    )  # fmt: skip
    window, target, place = windows[0], targets[0], places[0]
    assert place.tolist() == [1, 2, 0, 30]
    np.testing.assert_allclose(window, collection.volumes[1, 2:18, 0:64, 30:94], atol=1e-6)
    picks = np.asarray(collection.picks_zyx_voxel)[1] - [2, 0, 30]
    inside = ((picks >= 0) & (picks <= np.array(PATCH) - 1)).all(-1)
    kinds = np.asarray(collection.picks_type)[1]
    for p, k in zip(np.round(picks[inside]).astype(int), kinds[inside], strict=True):
        assert target[(k, *p)] > 0.8


def test_an_epoch_visits_every_row_once_and_the_next_in_another_order() -> None:
    grid = epoch_grid([(40, 96, 96)], (16, 32, 32), CropConfig())
    n = len(grid) // 4
    first = [rows_of_step(grid, seed=1, step=s, batch=4) for s in range(n)]
    assert len({tuple(r) for rows in first for r in rows}) == 4 * n
    assert not np.array_equal(first[0], rows_of_step(grid, seed=1, step=n, batch=4))
    assert np.array_equal(first[2], rows_of_step(grid, seed=1, step=2, batch=4))


def test_the_challenge_s_epoch_has_the_published_number_of_windows() -> None:
    assert len(epoch_grid([(184, 630, 630)], (16, 128, 128), CropConfig())) == 22 * 9 * 9


@pytest.mark.parametrize("load", [True, False])
def test_a_volume_smaller_than_a_window_is_padded(load: bool) -> None:
    grid = VoxelGrid(shape_zyx=(8, 40, 64), spacing_zyx_angstrom=(10.0,) * 3)
    voxels = np.random.default_rng(0).normal(size=grid.shape_zyx).astype(np.float32)
    volume = Volume(name="flat", voxels=voxels, grid=grid)
    picks = Picks(run="flat", types=CZII_TYPES, xyz_angstrom=np.full((1, 3), 50.0), type_index=np.zeros(1, np.int64))
    intensity = IntensityConfig(mean=0.0, std=1.0)
    collection = collect([volume], [picks], intensity, PATCH, load=load)
    rows = epoch_grid([grid.shape_zyx], PATCH, CropConfig())
    assert rows.tolist() == [[0, 0, 0, 0]] and collection.shapes_zyx.tolist() == [list(PATCH)]
    if load:
        window = cut_windows(collection.volumes, jnp.asarray(rows), PATCH)[0]
    else:
        streamed = StreamedWindows(
            [volume], collection, lambda step: rows, np.zeros(1, np.int32), key=jax.random.key(0), patch_zyx=PATCH,
            crop=CropConfig(), intensity=intensity,
        )  # fmt: skip
        window = streamed.of_step(0)[0]
        streamed.close()
    np.testing.assert_array_equal(window, np.pad(voxels, [(0, 8), (0, 24), (0, 0)]))
    tiny = dataclasses.replace(volume, grid=dataclasses.replace(grid, shape_zyx=(3, 40, 64)), voxels=voxels[:3])
    with pytest.raises(InputError, match=r"3×40×64 voxels .* 16×64×64"):
        collect([tiny], [picks], intensity, PATCH)


@pytest.mark.slow
def test_samples_do_not_depend_on_who_draws_them(collection: Collection) -> None:
    """A batch drawn by one device, in halves, and one sample at a time: the same bits."""
    grid = epoch_grid([(40, 96, 96), (20, 64, 120)], PATCH, CropConfig())
    rows = jnp.asarray(rows_of_step(grid, seed=3, step=5, batch=4))
    keys = sample_keys(jax.random.key(7), 5, jnp.arange(4))

    @jax.jit
    def draw(rows, keys):
        return draw_samples(
            collection, rows, keys=keys, patch_zyx=PATCH, sigma_voxel=np.full(6, 3.0, np.float32),
            crop=CropConfig(near_pick=0.5), augmentation=AugmentConfig(), target=TargetConfig(),
        )  # fmt: skip

    whole = draw(rows, keys)
    for size in (1, 2):
        parts = [draw(rows[i : i + size], keys[i : i + size]) for i in range(0, 4, size)]
        for all_at_once, pieces in zip(whole, zip(*parts, strict=True), strict=True):
            np.testing.assert_array_equal(all_at_once, np.concatenate(pieces))
    devices = jax.local_devices()[:2]
    assert len(devices) == 2
    halves = jax.pmap(draw, devices=devices)(rows.reshape(2, 2, 4), keys.reshape(2, 2))
    for all_at_once, both in zip(whole, halves, strict=True):
        np.testing.assert_array_equal(all_at_once, np.asarray(both).reshape(all_at_once.shape))
