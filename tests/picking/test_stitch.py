"""Stitching is the weighted mean over windows, however they are batched, ordered and cut into slabs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from jaxtyping import Array, Float

from jaxcryo.config import InferenceConfig, IntensityConfig
from jaxcryo.domain import ParticleType, Picks, Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picking import stitch as stitching
from jaxcryo.picking.pipeline import find_picks
from jaxcryo.picking.reader import SlabReader
from jaxcryo.picking.stitch import Slab, averaged_slabs, heatmap_slabs, stitch, stitched_slabs
from jaxcryo.picking.windows import plan_windows, window_weight
from jaxcryo.runtime.opened import IN_PLANE_FLIPS, OpenModel, Predict
from jaxcryo.tomogram.statistics import surveyed

RAW = IntensityConfig(mean=0.0, std=1.0)
SHAPE = (21, 34, 29)


def volume_of(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Volume:
    voxels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Volume(name="TS_1", voxels=voxels, grid=VoxelGrid(shape_zyx=shape, spacing_zyx_angstrom=(10.0, 10.0, 10.0)))


def twice(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
    """The identity in the first channel, its negative in the second."""
    return jnp.stack([windows, -windows], axis=1)


def mean_of_window(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
    """An answer that depends on where the window lies."""
    mean = jnp.broadcast_to(windows.mean((1, 2, 3), keepdims=True), windows.shape)
    return jnp.stack([mean, windows * mean], axis=1)


def engine_of(
    predict: Predict = twice,
    *,
    patch: tuple[int, int, int] = (8, 16, 12),
    stride: tuple[int, int, int] = (4, 6, 5),
    batch: int = 4,
    intensity: IntensityConfig = RAW,
) -> OpenModel:
    return OpenModel(
        name="test", patch_zyx=patch, stride_zyx=stride, batch=batch, classes=2, predict=predict, intensity=intensity
    )


def stitched_directly(volume: Volume, engine: OpenModel) -> np.ndarray:
    """The definition, over a whole padded volume."""
    plan = plan_windows(volume.grid.shape_zyx, engine.patch_zyx, engine.stride_zyx)
    axes = (plan.z, plan.y, plan.x)
    padded = np.pad(volume.load(), [(a.pad_before, a.padded - a.size - a.pad_before) for a in axes])
    sums, weights = np.zeros((2, *padded.shape)), np.zeros(padded.shape)
    for start in itertools.product(*(a.starts for a in axes)):
        at = tuple(slice(s, s + n) for s, n in zip(start, engine.patch_zyx, strict=True))
        weight = window_weight(engine.patch_zyx)
        sums[(slice(None), *at)] += np.asarray(engine.predict(jnp.asarray(padded[at])[None]))[0] * weight
        weights[at] += weight
    inside = tuple(slice(a.pad_before, a.pad_before + a.size) for a in axes)
    return (sums / weights)[(slice(None), *inside)]


@pytest.mark.parametrize("stride", [(4, 6, 5), (8, 16, 12), (3, 5, 4), (5, 16, 1)])
def test_the_identity_gives_the_volume_back(stride: tuple[int, int, int]) -> None:
    volume = volume_of()
    heatmap = stitch(volume, [engine_of(stride=stride, batch=16)])
    np.testing.assert_allclose(heatmap[0], volume.voxels, atol=1e-5)
    np.testing.assert_allclose(heatmap[1], -volume.voxels, atol=1e-5)


def test_it_is_the_weighted_mean_over_windows() -> None:
    volume, engine = volume_of(), engine_of(mean_of_window)
    np.testing.assert_allclose(stitch(volume, [engine]), stitched_directly(volume, engine), atol=1e-5)


def test_flips_are_turned_back_and_averaged() -> None:
    def lopsided(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        ramp = jnp.arange(windows.shape[-1]) + 100 * jnp.arange(windows.shape[-2])[:, None]
        return jnp.stack([windows, windows * ramp], axis=1)

    windows = np.random.default_rng(0).normal(size=(8, 16, 12)).astype(np.float32)
    volume = Volume(
        name="TS_1", voxels=windows, grid=VoxelGrid(shape_zyx=(8, 16, 12), spacing_zyx_angstrom=(10.0,) * 3)
    )
    engine = dataclasses.replace(engine_of(lopsided), flips=IN_PLANE_FLIPS)
    heatmap = stitch(volume, [engine])
    np.testing.assert_allclose(heatmap[0], windows, atol=1e-5)
    np.testing.assert_allclose(heatmap[1], windows * (11 / 2 + 100 * 15 / 2), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("batch", [1, 3, 7, 50])
def test_it_does_not_depend_on_the_batch(batch: int) -> None:
    volume = volume_of()
    expected = stitch(volume, [engine_of(mean_of_window, batch=20)])
    np.testing.assert_allclose(stitch(volume, [engine_of(mean_of_window, batch=batch)]), expected, atol=1e-5)


def test_it_does_not_depend_on_the_order_of_windows() -> None:
    volume, engine = volume_of(), engine_of(mean_of_window)
    plan = plan_windows(SHAPE, engine.patch_zyx, engine.stride_zyx)
    y, x = (
        dataclasses.replace(a, starts=tuple(np.random.default_rng(1).permutation(a.starts))) for a in (plan.y, plan.x)
    )
    permuted = dataclasses.replace(plan, y=y, x=x)
    slabs = stitched_slabs(volume, SlabReader(volume).stream(), engine, plan=permuted)
    heatmap = np.concatenate([np.asarray(s.heatmap) for s in slabs], axis=1)
    np.testing.assert_allclose(heatmap, stitch(volume, [engine]), atol=1e-5)


def test_slabs_follow_each_other_from_the_first_slice_to_the_last() -> None:
    slabs = list(heatmap_slabs(volume_of(), [engine_of(), engine_of(patch=(16, 16, 16), stride=(8, 8, 8))]))
    z = 0
    for slab in slabs:
        assert slab.z_start == z
        z += slab.heatmap.shape[1]
    assert z == SHAPE[0]


def test_engines_of_different_depth_and_stride_are_averaged() -> None:
    volume = volume_of()
    shallow, deep = engine_of(mean_of_window), engine_of(twice, patch=(16, 16, 16), stride=(7, 8, 8), batch=2)
    expected = (stitch(volume, [shallow]) + stitch(volume, [deep])) / 2
    np.testing.assert_allclose(stitch(volume, [shallow, deep]), expected, atol=1e-5)


def test_averaging_takes_any_slab_heights() -> None:
    whole = [np.random.default_rng(i).normal(size=(2, 11, 3, 3)).astype(np.float32) for i in range(3)]

    def cut(volume: np.ndarray, heights: list[int]) -> list[Slab]:
        starts = np.cumsum([0, *heights])
        return [Slab(z_start=int(a), heatmap=jnp.asarray(volume[:, a:b])) for a, b in itertools.pairwise(starts)]

    streams = [iter(cut(v, h)) for v, h in zip(whole, ([11], [1, 4, 6], [3] * 3 + [2]), strict=True)]
    averaged = np.concatenate([np.asarray(s.heatmap) for s in averaged_slabs(streams)], axis=1)
    np.testing.assert_allclose(averaged, np.mean(whole, axis=0), atol=1e-6)


def test_nothing_compiles_again_within_a_tomogram_nor_for_the_next_one() -> None:
    traces = 0

    def predict(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        nonlocal traces
        traces += 1
        return twice(windows)

    engine = engine_of(predict, batch=5)
    stitch(volume_of(seed=1), [engine])
    stitch(volume_of(seed=2), [engine])
    assert traces == 1


def test_bound_parameters_are_arguments_and_do_not_compile_again() -> None:
    traces = 0

    def scaled(scale: Array, windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        nonlocal traces
        traces += 1
        return scale * twice(windows)

    volume = volume_of()
    for scale in (2.0, 3.0):
        engine = dataclasses.replace(engine_of(Partial(scaled, jnp.asarray(scale))), name=f"times {scale}")
        heatmap = stitch(volume, [engine])
        np.testing.assert_allclose(heatmap[0], scale * volume.voxels, atol=1e-5)
    assert traces == 1


def test_intensity_is_normalized_by_constants_or_by_the_tomogram() -> None:
    volume = volume_of()
    volume = dataclasses.replace(volume, voxels=volume.voxels * 3e-6 + 1e-4)
    fixed = stitch(volume, [engine_of(intensity=IntensityConfig(mean=1e-4, std=2e-6))])[0]
    np.testing.assert_allclose(fixed, (volume.voxels - 1e-4) / 2e-6, atol=1e-3)
    own = stitch(volume, [engine_of(intensity=IntensityConfig(rule="tomogram"))])[0]
    assert abs(own.mean()) < 1e-3
    assert abs(own.std() - 1) < 1e-3


def test_padding_is_zero_after_normalization() -> None:
    volume = volume_of((8, 18, 12))
    engine = engine_of(stride=(4, 6, 5), intensity=IntensityConfig(mean=5.0, std=1.0))
    seen: list[np.ndarray] = []

    def predict(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        jax.debug.callback(lambda w: seen.append(np.array(w)), windows)
        return twice(windows)

    stitch(volume, [dataclasses.replace(engine, predict=predict)])
    assert (seen[0][0, :, :2] == 0).all()  # 18 voxels are padded to 22


def test_a_volume_without_contrast_is_refused() -> None:
    volume = dataclasses.replace(volume_of(), voxels=np.full(SHAPE, 2.0, np.float32))
    with pytest.raises(InputError, match=r"\b2\b"):
        stitch(volume, [engine_of(intensity=IntensityConfig(rule="tomogram"))])


class _Recorded:
    """An array that notes which slices are read."""

    def __init__(self, voxels: np.ndarray, chunk: int) -> None:
        self.voxels, self.chunks, self.reads = voxels, (chunk, 8, 8), list[slice]()

    def __getitem__(self, index: tuple[slice, slice, slice]) -> np.ndarray:
        self.reads.append(index[0])
        return self.voxels[index]


def test_each_block_of_chunks_is_read_once_in_order_and_few_are_held() -> None:
    plain = volume_of((200, 16, 16))
    recorded = _Recorded(plain.voxels, chunk=6)
    volume = dataclasses.replace(plain, voxels=recorded)
    engines = [engine_of(batch=9), engine_of(patch=(16, 16, 16), stride=(8, 8, 8), batch=9)]
    reader = SlabReader(volume)
    held = 0
    for slab in averaged_slabs([stitched_slabs(volume, reader.stream(), e) for e in engines]):
        held = max(held, len(reader._blocks))
        assert slab.heatmap.shape[1] <= 8
    assert [(r.start, r.stop) for r in recorded.reads] == [(z, min(z + 18, 200)) for z in range(0, 200, 18)]
    assert held <= 3


def test_progress_counts_the_windows_of_all_engines() -> None:
    volume = volume_of()
    engines = [engine_of(batch=7), engine_of(patch=(16, 16, 16), stride=(8, 8, 8), batch=4)]
    reports: list[tuple[int, int]] = []
    for _ in heatmap_slabs(volume, engines, on_windows=lambda done, total: reports.append((done, total))):
        pass
    total = sum(plan_windows(SHAPE, e.patch_zyx, e.stride_zyx).count for e in engines)
    assert {t for _, t in reports} == {total}
    assert reports[-1] == (total, total)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(reports))


@pytest.mark.parametrize(
    ("engines", "message"),
    [
        (list, "no "),
        (lambda: [engine_of(), dataclasses.replace(engine_of(), name="other", classes=3)], "test: 2, other: 3"),
        (lambda: [engine_of(patch=(96, 16, 16))], "21×34×29 .* 96×16×16"),
        (lambda: [engine_of(lambda windows: windows[:, None])], r"expected \(4, 2, 8, 16, 12\)"),
    ],
)
def test_what_cannot_be_stitched(engines: Callable[[], list[OpenModel]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stitch(volume_of(), engines())


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("patch", [(32, 16, 16), (8, 96, 16), (48, 96, 96)])
def test_a_volume_smaller_than_a_window_comes_back_whole(padding, patch: tuple[int, int, int]) -> None:
    volume = volume_of()
    engine = dataclasses.replace(engine_of(patch=patch, stride=(4, 8, 8)), padding=padding)
    np.testing.assert_allclose(stitch(volume, [engine])[0], volume.load(), atol=1e-5)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_what_lies_beyond_the_volume(padding) -> None:
    """A predictor that smears across windows sees the padding; the identity never shows it."""
    volume = np.random.default_rng(5).normal(size=(10, 19, 21)).astype(np.float32)
    grid = VoxelGrid(shape_zyx=volume.shape, spacing_zyx_angstrom=(10.0,) * 3)
    seen: list[np.ndarray] = []

    def predict(windows):
        jax.debug.callback(lambda w: seen.append(np.asarray(w)), windows)
        return windows[:, None]

    engine = OpenModel(
        name="spy", patch_zyx=(8, 16, 16), stride_zyx=(4, 8, 8), batch=1, classes=1, predict=predict,
        intensity=IntensityConfig(mean=0, std=1), padding=padding,
    )  # fmt: skip
    stitched = stitch(Volume(name="v", voxels=volume, grid=grid), [engine])
    np.testing.assert_allclose(stitched[0], volume, atol=1e-5)
    jax.effects_barrier()
    expected = np.pad(volume, [(1, 1), (2, 3), (1, 2)], mode="constant" if padding == "zeros" else "reflect")
    assert any(np.allclose(w[0], expected[:8, :16, :16], atol=1e-6) for w in seen)  # callbacks come in any order


def with_a_gap(padding: Literal["zeros", "reflect"]) -> tuple[Volume, OpenModel]:
    """A tomogram that ends aslant, and a network that answers to nothing too."""
    volume = volume_of((16, 40, 44))
    z, _, x = np.indices(volume.grid.shape_zyx)
    volume = surveyed(dataclasses.replace(volume, voxels=np.where(x + z > 26, np.nan, volume.voxels)))
    model = engine_of(lambda windows: mean_of_window(windows) + 0.7 + 0.1 * jnp.abs(windows[:, None]))
    return volume, dataclasses.replace(model, padding=padding, intensity=IntensityConfig(rule="robust"))


@pytest.mark.parametrize(("padding", "masked"), [("zeros", False), ("reflect", True)])
def test_windows_without_data_are_left_out_and_nothing_changes(
    padding: Literal["zeros", "reflect"], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, network = with_a_gap(padding)
    calls: list[int] = []

    def counted(windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        jax.debug.callback(lambda count: calls.append(count), len(windows))
        return network.predict(windows)

    model = dataclasses.replace(network, predict=counted, batch=1)
    types = tuple(ParticleType(name=n, radius_angstrom=20.0, threshold=0.75) for n in ("bright", "dark"))
    region = np.zeros(volume.grid.shape_zyx, np.int8)
    region[:, 10:] = 1
    mask = dataclasses.replace(volume_of(volume.grid.shape_zyx), voxels=region) if masked else None

    def found() -> tuple[np.ndarray, Picks, int, list[str], list[tuple[int, int]]]:
        calls.clear()
        slabs: list[np.ndarray] = []
        told: list[str] = []
        reports: list[tuple[int, int]] = []
        picks = find_picks(
            volume, [model], types, config=InferenceConfig(), mask=mask, note=told.append,
            on_slab=lambda slab: slabs.append(np.asarray(slab.heatmap)),
            on_windows=lambda done, total: reports.append((done, total)),
        )  # fmt: skip
        jax.effects_barrier()
        return np.concatenate(slabs, axis=1), picks, len(calls), told[masked:], reports

    heatmap, picks, count, told, reports = found()
    monkeypatch.setattr(stitching, "windows_over", lambda plan, columns: np.ones(len(plan.starts_yx()), np.bool_))
    full_heatmap, full_picks, full_count, full_told, full_reports = found()
    if not masked:
        plan = plan_windows(volume.grid.shape_zyx, model.patch_zyx, model.stride_zyx)
        axes = (plan.z, plan.y, plan.x)
        padded = [(a.pad_before, a.padded - a.size - a.pad_before) for a in axes]
        data = np.pad(~np.isnan(volume.load()), padded)
        holding = [data[z : z + 8, y : y + 16, x : x + 12].any() for z in plan.z.starts for y, x in plan.starts_yx()]
        assert (count, full_count) == (sum(holding), len(holding))
    assert 20 < full_count - count < full_count
    np.testing.assert_array_equal(heatmap, full_heatmap)
    assert len(picks) > 5
    np.testing.assert_array_equal(picks.xyz_angstrom, full_picks.xyz_angstrom)
    np.testing.assert_array_equal(picks.score, full_picks.score)
    assert len(told) == 1 and f"{full_count - count} of {full_count} windows" in told[0]
    assert not full_told
    assert reports[-1] == full_reports[-1] == (full_count, full_count)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(reports))


@pytest.mark.slow
def test_windows_are_left_out_for_every_model_and_batch() -> None:
    volume, model = with_a_gap("reflect")
    models = [model, dataclasses.replace(model, name="deep", patch_zyx=(16, 16, 16), stride_zyx=(7, 8, 8), batch=3)]
    told: list[str] = []
    slabs = heatmap_slabs(volume, models, note=told.append)
    together = np.concatenate([np.asarray(s.heatmap) for s in slabs], axis=1)
    np.testing.assert_allclose(together, (stitch(volume, models[:1]) + stitch(volume, models[1:])) / 2, atol=1e-6)
    assert len(told) == 1
    assert not together[:, np.isnan(volume.load())].any()
