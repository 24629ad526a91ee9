"""The TensorRT runtime over a double of TensorRT: inside jit, on XLA's buffers, and loud where TensorRT is silent."""

from __future__ import annotations

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax
from onnx import TensorProto, helper, numpy_helper

from jaxcryo.config import IntensityConfig
from jaxcryo.domain import Volume, VoxelGrid
from jaxcryo.errors import InputError
from jaxcryo.picking.stitch import stitch
from jaxcryo.runtime.opened import ModelError, OpenModel

BATCH, CLASSES, PATCH = 2, 2, (4, 8, 6)
SHAPE = (9, 17, 14)


def plan_of(version: str = "10.12.0.36", card: str = "7.5", output: str = "heatmaps") -> bytes:
    """An engine of the double: each class is the window times 2 or -1."""
    windows = helper.make_tensor_value_info("windows", TensorProto.FLOAT, [BATCH, *PATCH])
    heatmaps = helper.make_tensor_value_info(output, TensorProto.FLOAT, [BATCH, CLASSES, *PATCH])
    nodes = [
        helper.make_node("Unsqueeze", ["windows", "axis"], ["images"]),
        helper.make_node("Mul", ["images", "scales"], [output]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
        numpy_helper.from_array(np.array([2, -1], np.float32).reshape(1, -1, 1, 1, 1), "scales"),
    ]
    graph = helper.make_graph(nodes, "test", [windows], [heatmaps], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return json.dumps({"version": version, "card": card}).encode() + b"\n" + model.SerializeToString()


@pytest.fixture
def engine_path(trt, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "model.engine"
    path.write_bytes(plan_of())
    return path


def load(path: pathlib.Path, classes: int = CLASSES):
    from jaxcryo.runtime.tensorrt import tensorrt_predict

    return tensorrt_predict(path, batch=BATCH, classes=classes, patch_zyx=PATCH)


def engine_of(path: pathlib.Path) -> OpenModel:
    return OpenModel(
        name="model", patch_zyx=PATCH, stride_zyx=(2, 4, 3), batch=BATCH, classes=CLASSES, predict=load(path),
        intensity=IntensityConfig(mean=0.0, std=1.0),
    )  # fmt: skip


def volume_of(voxels: np.ndarray) -> Volume:
    grid = VoxelGrid(shape_zyx=voxels.shape, spacing_zyx_angstrom=(10.0, 10.0, 10.0))
    return Volume(name="TS_1", voxels=voxels, grid=grid)


def test_it_answers_inside_jit_and_scan(engine_path: pathlib.Path, trt) -> None:
    predict = load(engine_path)
    windows = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, *PATCH)), jnp.float32)
    np.testing.assert_array_equal(jax.jit(predict)(windows), jnp.stack([2 * windows, -windows], axis=1))
    _, stacked = lax.scan(lambda c, w: (c, predict(w)), 0, jnp.stack([windows, windows + 1]))
    np.testing.assert_array_equal(stacked[1, :, 1], -(windows + 1))
    assert trt.calls == [("enqueue", 1234)] * 3


def test_it_stitches(engine_path: pathlib.Path) -> None:
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    heatmap = stitch(volume_of(voxels), [engine_of(engine_path)])
    np.testing.assert_allclose(heatmap, np.stack([2 * voxels, -voxels]), atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("enqueue", r"^model: .*an illegal memory access was encountered"),
        ("address", r"^model: .*0x[0-9a-f]+.*'windows'.*256"),
    ],
)
def test_a_failed_enqueue_says_why_and_the_next_one_works(engine_path: pathlib.Path, trt, fault, message) -> None:
    engine = engine_of(engine_path)
    volume = volume_of(np.zeros(SHAPE, np.float32))
    trt.said = {fault}
    with pytest.raises(ModelError, match=message):
        stitch(volume, [engine])
    trt.said = set()
    assert not stitch(volume, [engine]).any()


def test_engines_that_cannot_be_loaded(engine_path: pathlib.Path, trt) -> None:
    trt.said = {"context"}
    with pytest.raises(InputError, match="out of memory"):
        load(engine_path)
    engine_path.write_bytes(plan_of(version="10.9.0"))
    with pytest.raises(InputError, match=r"10\.12\.0\.36.*convert engine"):
        load(engine_path)
    with pytest.raises(InputError, match=r"none.engine"):
        load(engine_path.with_name("none.engine"))


def test_engines_that_are_not_what_was_asked_for(engine_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"windows.*\[2, 4, 8, 6\].*heatmaps.*\[2, 3, 4, 8, 6"):
        load(engine_path, classes=3)
    engine_path.write_bytes(plan_of(output="logits"))
    with pytest.raises(InputError, match=r"logits.*'heatmaps'"):
        load(engine_path)


def test_jax_must_run_on_the_gpu(engine_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxcryo.runtime.tensorrt as runtime

    monkeypatch.setattr(runtime, "_platform", lambda: "cpu")
    with pytest.raises(InputError, match=r"cpu.*jax\[cuda12\]"):
        load(engine_path)
