"""OpenVINO inside jit answers as the graph says, on XLA's own buffers."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import openvino
import pytest
from jax import lax
from jaxtyping import Array
from onnx import TensorProto, helper, numpy_helper

from jaxcryo.config import IntensityConfig
from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picking.stitch import stitch
from jaxcryo.picking.windows import plan_windows
from jaxcryo.runtime.opened import ModelError, OpenModel
from jaxcryo.runtime.openvino import openvino_predict

BATCH, CLASSES, PATCH = 2, 2, (4, 8, 6)


def save_graph(path: pathlib.Path, scales: tuple[float, ...] = (2.0, -1.0), output: str = "heatmaps") -> pathlib.Path:
    """Each class is the window times its scale."""
    windows = helper.make_tensor_value_info("windows", TensorProto.FLOAT, [BATCH, *PATCH])
    heatmaps = helper.make_tensor_value_info(output, TensorProto.FLOAT, [BATCH, len(scales), *PATCH])
    nodes = [
        helper.make_node("Unsqueeze", ["windows", "axis"], ["images"]),
        helper.make_node("Mul", ["images", "scales"], [output]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array(scales, np.float32).reshape(1, -1, 1, 1, 1), "scales"),
    ]
    graph = helper.make_graph(nodes, "test", [windows], [heatmaps], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_graph(tmp_path_factory.mktemp("onnx") / "model.onnx")


load = functools.partial(openvino_predict, batch=BATCH, classes=CLASSES, patch_zyx=PATCH)


def windows_of(seed: int) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, *PATCH)), jnp.float32)


def test_it_answers_as_the_graph_says(onnx_path: pathlib.Path) -> None:
    predict = load(onnx_path)
    for seed in range(3):
        windows = windows_of(seed)
        expected = jnp.stack([2 * windows, -windows], axis=1)
        np.testing.assert_array_equal(predict(windows), expected)
        np.testing.assert_array_equal(jax.jit(predict)(windows), expected)


def test_it_runs_in_loops_and_with_donated_buffers(onnx_path: pathlib.Path) -> None:
    predict = load(onnx_path)

    @functools.partial(jax.jit, donate_argnums=0)
    def add(sums: Array, windows: Array) -> Array:
        return sums + lax.fori_loop(0, 3, lambda i, s: s + predict(windows + i), jnp.zeros_like(sums))

    windows = windows_of(0)
    sums = jnp.zeros((BATCH, CLASSES, *PATCH))
    for _ in range(2):
        sums = add(sums, windows)
    once = np.asarray(3 * windows + 3)
    np.testing.assert_allclose(sums, 2 * np.stack([2 * once, -once], axis=1), rtol=1e-5, atol=1e-5)
    _, stacked = lax.scan(lambda c, w: (c, predict(w)), 0, jnp.stack([windows, windows + 1]))
    np.testing.assert_array_equal(stacked[1, :, 1], -(windows + 1))


def test_it_stitches(onnx_path: pathlib.Path) -> None:
    voxels = np.random.default_rng(0).normal(size=(9, 17, 14)).astype(np.float32)
    heatmap = stitch(volume_of(voxels), [engine_of(onnx_path)])
    np.testing.assert_allclose(heatmap, np.stack([2 * voxels, -voxels]), atol=1e-5)


def volume_of(voxels: np.ndarray) -> Volume:
    grid = VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=(10.0, 10.0, 10.0))
    return Volume(name="TS_1", voxels=voxels, grid=grid)


def engine_of(onnx_path: pathlib.Path) -> OpenModel:
    return OpenModel(
        name="model",
        patch_zyx=PATCH,
        stride_zyx=(2, 4, 3),
        batch=BATCH,
        classes=CLASSES,
        predict=load(onnx_path),
        intensity=IntensityConfig(mean=0.0, std=1.0),
    )


@contextlib.contextmanager
def counted_compilations() -> Iterator[list[str]]:
    """What XLA compiles meanwhile."""
    compiled: list[str] = []

    def note(event: str, duration: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.slow
def test_nothing_compiles_again_within_a_tomogram(onnx_path: pathlib.Path) -> None:
    """A deeper one, of more layers of windows and a last batch that is not full, compiles no more than a flat one."""
    engine = engine_of(onnx_path)
    counts = []
    for depth in (8, 40):
        jax.clear_caches()
        volume = volume_of(np.random.default_rng(0).normal(size=(depth, 16, 12)).astype(np.float32))
        plan = plan_windows(volume.grid.shape_zyx, engine.patch_zyx, engine.stride_zyx)
        assert len(plan.y.starts) * len(plan.x.starts) % BATCH == 1
        with counted_compilations() as compiled:
            stitch(volume, [engine])
        counts.append(len(compiled))
    assert counts[0] == counts[1] > 0
    with counted_compilations() as compiled:
        stitch(volume, [engine_of(onnx_path)])
    assert len(compiled) <= 1  # the other engine's step, and nothing else


def test_bfloat16_is_close(onnx_path: pathlib.Path) -> None:
    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not capable:
        with pytest.raises(InputError, match="bfloat16"):
            load(onnx_path, precision="bfloat16")
        return
    windows = windows_of(1)
    heatmaps = load(onnx_path, precision="bfloat16")(windows)
    assert heatmaps.dtype == jnp.float32
    np.testing.assert_allclose(heatmaps[:, 0], 2 * windows, rtol=2e-2)


def test_what_the_engine_says_reaches_the_caller(onnx_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(onnx_path)

    class _Broken:
        def __getattr__(self, name: str) -> object:
            raise MemoryError("no memory for the layer's output")

    monkeypatch.setattr(engine.predict, "_request", _Broken())
    volume = volume_of(np.zeros((9, 17, 14), np.float32))
    with pytest.raises(ModelError, match=r"^model: .*no memory for the layer's output") as raised:
        stitch(volume, [engine])
    assert isinstance(raised.value.__cause__, MemoryError)


def test_a_graph_that_is_not_what_was_asked_for(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx"):
        load(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"bad\.onnx"):
        load(tmp_path / "bad.onnx")
    with pytest.raises(InputError, match=r"'heatmaps'.* \[2, 2, 4, 8, 6\]"):
        load(save_graph(tmp_path / "three.onnx", scales=(1.0, 2.0, 3.0)))
    with pytest.raises(InputError, match=r"logits.*'heatmaps'"):
        load(save_graph(tmp_path / "name.onnx", output="logits"))
