"""Training and inference give networks the same voxels, by every rule, with and without empty regions."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcryo.config import CropConfig, InferenceConfig, IntensityConfig
from jaxcryo.data.collection import collect
from jaxcryo.data.streaming import StreamedWindows
from jaxcryo.domain import CZII_TYPES, ParticleType, Picks, Volume, VoxelGrid
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.stitch import stitch
from jaxcryo.runtime.opened import OpenModel
from jaxcryo.tomogram.statistics import surveyed

SHAPE = (16, 60, 70)
PATCH = (8, 24, 24)
GRID = VoxelGrid(shape_zyx=SHAPE, spacing_zyx_angstrom=(10.0,) * 3)


def volume_with(filling: float) -> Volume:
    voxels = np.random.default_rng(0).normal(100, 3, SHAPE).astype(np.float32)
    voxels[:, :, 40:] = filling
    return Volume(name="TS_1", voxels=voxels, grid=GRID)


def engine_of(intensity: IntensityConfig) -> OpenModel:
    return OpenModel(
        name="identity", patch_zyx=PATCH, stride_zyx=(4, 12, 12), batch=4, classes=1,
        predict=lambda windows: windows[:, None], intensity=intensity,
    )  # fmt: skip


@pytest.mark.parametrize("rule", ["fixed", "tomogram", "robust"])
@pytest.mark.parametrize("filling", [0.0, 100.0, float("nan")])
def test_training_and_inference_see_the_same(rule: Literal["fixed", "tomogram", "robust"], filling: float) -> None:
    intensity = IntensityConfig(rule=rule, mean=99.0, std=3.0, clip=2.5)
    volume = surveyed(volume_with(filling))
    picks = Picks(run="TS_1", types=CZII_TYPES, xyz_angstrom=np.full((1, 3), 50.0), type_index=np.zeros(1, int))
    collection = collect([volume], [picks], intensity, PATCH)
    assert collection.volumes is not None
    trained = np.asarray(collection.volumes[0])
    np.testing.assert_allclose(stitch(volume, [engine_of(intensity)])[0], trained, atol=2e-6)
    assert not trained[:, :, 40:].any() and np.abs(trained).max() == 2.5
    bare = dataclasses.replace(collection, volumes=None)
    windows = StreamedWindows(
        [volume], bare, lambda step: np.array([[0, 8, 36, 30]], np.int32), np.zeros(1, np.int32),
        key=jax.random.key(0), patch_zyx=PATCH, crop=CropConfig(jitter=0), intensity=intensity,
    )  # fmt: skip
    np.testing.assert_array_equal(windows.of_step(0)[0], trained[8:16, 36:60, 30:54])
    windows.close()


@pytest.mark.slow
def test_there_are_no_picks_in_empty_regions() -> None:
    """Whatever a network says of them."""
    types = (ParticleType(name="ribosome", radius_angstrom=50, threshold=0.1),)
    peaks = jnp.zeros(PATCH).at[4, 12, 12].set(1.0)
    engine = dataclasses.replace(
        engine_of(IntensityConfig(rule="robust")),
        predict=lambda windows: jnp.broadcast_to(peaks, windows.shape)[:, None],
        stride_zyx=PATCH,
    )
    everywhere = find_picks(volume_with(float("nan")), [engine], types, config=InferenceConfig())
    x = GRID.to_voxel(everywhere.xyz_angstrom)[:, 2]
    assert len(x) and x.max() < 40
    whole = dataclasses.replace(volume_with(0.0), voxels=np.random.default_rng(0).normal(size=SHAPE))
    assert GRID.to_voxel(find_picks(whole, [engine], types, config=InferenceConfig()).xyz_angstrom)[:, 2].max() > 40
