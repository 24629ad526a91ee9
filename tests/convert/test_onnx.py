"""The ONNX graphs compute what Flax does, and hold only what TensorRT takes."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from jaxcryo.config import NetworkConfig, Precision
from jaxcryo.convert.onnx_write import multiply_adds, write_onnx
from jaxcryo.errors import InputError
from jaxcryo.models import Network, Weights, build
from jaxcryo.models.onnx_graph import Graph
from jaxcryo.models.onnx_layers import Upsampling, emit
from jaxcryo.models.tattaka.network import Tattaka
from jaxcryo.models.yu4u.config import Yu4uConfig
from jaxcryo.models.yu4u.network import Yu4u
from jaxcryo.recipes import recipe
from jaxcryo.runtime.openvino import openvino_predict
from jaxcryo.serialize import from_plain

ROOT = pathlib.Path(__file__).parents[2]
ARCHS: tuple[str, ...] = ("yu4u", "tattaka")
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
UPSAMPLINGS: tuple[Upsampling, ...] = ("folded", "resize")
TOLERANCE = {"float32": 1e-5, "float16": 2e-3}

# Rows of the table "Operator Support Matrix" in docs/operators.md of github.com/onnx/onnx-tensorrt, for the operators
# in use: FP32 and FP16 stand in all of them, in the versions of TensorRT 10.0 (opsets 9 to 20) and 10.15 (9 to 24).
# The parser's release notes for 11.0 to 11.5 name additions only, and docs.nvidia.com, "ONNX Opset Guide", gives
# opset 9 as the oldest for TensorRT 11.
TENSORRT_OPERATORS = {
    "Add", "AveragePool", "Cast", "Concat", "Conv", "Div", "Gelu", "GlobalAveragePool", "Mul", "ReduceMean", "Relu",
    "Reshape", "Resize", "Sigmoid", "Sqrt", "Sub", "Transpose",
}  # fmt: skip
# INT64 for shapes and axes, which must be initialisers.
TENSORRT_TYPES = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64}
TENSORRT_OPSETS = range(9, 21)
TENSORRT_MAX_RANK = 8


FASTFCN = dataclasses.replace(
    recipe("tattaka", "tiny").model, jpu_coarsest_first=True, scse_before=True, scse_full_width=True, scse_last=False
)
"""The decoder of the author's earlier code."""


def config_of(arch: str, size: str) -> NetworkConfig:
    return recipe(arch, size).model


def random_weights(config: NetworkConfig) -> tuple[Network, Weights, Weights]:
    """Drawn as for a training, but with scales and statistics that foldings cannot lose unnoticed."""
    network, params, stats = build(config, seed=0)
    rng = np.random.default_rng(0)
    ranges = {"gamma": (0.3, 1.0), "scale": (0.7, 1.3), "bias": (-0.2, 0.2), "mean": (-0.2, 0.2), "var": (0.5, 1.5)}

    def drawn(weights: Weights) -> Weights:
        found = {}
        for name, array in weights.items():
            low_high = ranges.get(name.rsplit(".", 1)[-1])
            found[name] = array if low_high is None else jnp.asarray(rng.uniform(*low_high, array.shape), jnp.float32)
        return found

    return network, drawn(params), drawn(stats)


def relative_rms(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def run_onnx(model: onnx.ModelProto, windows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (heatmaps,) = session.run(["heatmaps"], {"windows": windows})
    return np.asarray(heatmaps)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@functools.cache
def answer(config: NetworkConfig) -> tuple[Yu4u | Tattaka, np.ndarray, np.ndarray]:
    """(module, windows, what Flax says)."""
    network, params, stats = random_weights(config)
    windows = noise((3, *config.patch_zyx))
    return network.module(params, stats), windows, np.asarray(jax.jit(network.apply)(params, stats, windows))


@functools.cache
def tiny(arch: str, precision: Precision, upsampling: Upsampling, batch: int = 1) -> onnx.ModelProto:
    config = config_of(arch, "tiny")
    return write_onnx(answer(config)[0], config, batch=batch, precision=precision, upsampling=upsampling)


every_form = pytest.mark.parametrize(
    ("arch", "precision", "upsampling"), [(a, p, u) for a in ARCHS for p in PRECISIONS for u in UPSAMPLINGS]
)


@every_form
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_onnx_equals_flax(
    arch: str, precision: Precision, upsampling: Upsampling, batch: int, tmp_path: pathlib.Path
) -> None:
    config = config_of(arch, "tiny")
    _, windows, expected = answer(config)
    windows, expected = windows[:batch], expected[:batch]
    model = tiny(arch, precision, upsampling, batch)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    in_openvino = openvino_predict(path, batch=batch, classes=config.classes, patch_zyx=config.patch_zyx)
    for found in (run_onnx(model, windows), np.asarray(in_openvino(windows))):
        assert found.dtype == np.float32
        assert relative_rms(found, expected) < TOLERANCE[precision]


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_another_size(arch: str) -> None:
    config = config_of(arch, "small")
    module, windows, expected = answer(config)
    for precision in PRECISIONS:
        model = write_onnx(module, config, batch=3, precision=precision, upsampling="folded")
        assert relative_rms(run_onnx(model, windows), expected) < TOLERANCE[precision]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        # Depth 1 from the first map of the decoder on: 2-D convolutions and dilations beyond every axis.
        dataclasses.replace(recipe("tattaka", "tiny").model, patch_zyx=(4, 32, 32), decoder_widths=(16, 8, 8)),
        dataclasses.replace(recipe("tattaka", "tiny").model, patch_zyx=(8, 32, 64), depth_pool_counts_padding=False),
        dataclasses.replace(recipe("yu4u", "tiny").model, patch_zyx=(32, 32, 64), classes=2),
        dataclasses.replace(FASTFCN, patch_zyx=(8, 32, 64), decoder_widths=(12, 8, 8)),
        dataclasses.replace(FASTFCN, patch_zyx=(4, 32, 32), decoder_widths=(12, 8), aspp_dilations=(1, 3)),
        dataclasses.replace(FASTFCN, patch_zyx=(8, 32, 64), aspp_dilations=(2, 4)),
    ],
    ids=["tattaka-depth-1", "tattaka-other-mean", "yu4u-deep", "fastfcn", "fastfcn-depth-1", "fastfcn-aspp"],
)
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_other_windows_and_choices(config: NetworkConfig, upsampling: Upsampling) -> None:
    module, windows, expected = answer(config)
    model = write_onnx(module, config, batch=3, precision="float32", upsampling=upsampling)
    check(model)
    assert relative_rms(run_onnx(model, windows), expected) < TOLERANCE["float32"]


def check(model: onnx.ModelProto) -> None:
    """ONNX's own checks; inference raises where it differs from the shapes and types that the writer noted."""
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


@every_form
def test_the_graph_is_what_tensorrt_takes(arch: str, precision: Precision, upsampling: Upsampling) -> None:
    check_for_tensorrt(tiny(arch, precision, upsampling))


def check_for_tensorrt(model: onnx.ModelProto) -> None:
    check(model)
    assert [(o.domain, o.version in TENSORRT_OPSETS) for o in model.opset_import] == [("", True)]
    assert model.ir_version <= 10
    assert {n.op_type for n in model.graph.node} <= TENSORRT_OPERATORS
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in values} <= TENSORRT_TYPES
    assert {i.data_type for i in model.graph.initializer} <= TENSORRT_TYPES
    for value in values:
        sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
        assert len(sizes) <= TENSORRT_MAX_RANK
        assert all(sizes), f"{value.name} has a size that is not static"
    constants = {i.name for i in model.graph.initializer}
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Resize":
            assert attributes["mode"] == b"nearest"
            assert attributes["coordinate_transformation_mode"] == b"asymmetric"
            assert attributes["nearest_mode"] == b"floor"
            assert "axes" not in attributes
        if node.op_type in ("Resize", "Reshape", "ReduceMean"):
            assert node.input[-1] in constants
        if node.op_type == "AveragePool":
            assert "dilations" not in attributes


@every_form
def test_no_node_is_in_vain(arch: str, precision: Precision, upsampling: Upsampling) -> None:
    check_for_idle_nodes(tiny(arch, precision, upsampling))


def check_for_idle_nodes(model: onnx.ModelProto) -> None:
    graph = model.graph
    constants = {i.name for i in graph.initializer}
    used = collections.Counter(name for node in graph.node for name in node.input)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in [*graph.input, *graph.value_info, *graph.output]
    }
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.value_info, *graph.output]}
    for node in graph.node:
        assert set(node.input) - constants - {""}, f"{node.name} could be a constant"
        assert used[node.output[0]] or node.output[0] == "heatmaps", f"nobody reads {node.name}"
        if node.op_type == "Reshape":
            assert shapes[node.input[0]] != shapes[node.output[0]], f"{node.name} changes nothing"
        if node.op_type == "Cast":
            assert types[node.input[0]] != types[node.output[0]], f"{node.name} changes nothing"
        if node.op_type == "Transpose":
            (order,) = (list(a.ints) for a in node.attribute)
            moved = [i for i in order if shapes[node.input[0]][i] > 1]
            assert moved != sorted(moved), f"{node.name} is a Reshape"
    assert all(used[c] for c in constants)
    assert len({(i.data_type, tuple(i.dims), i.raw_data) for i in graph.initializer}) == len(constants)


def first(model: onnx.ModelProto, op: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == op)


def stated_otherwise(model: onnx.ModelProto) -> None:
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value += 1


def symbolic(model: onnx.ModelProto) -> None:
    for value in (model.graph.input[0], model.graph.output[0], *model.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


def constants_only(model: onnx.ModelProto) -> None:
    bias = first(model, "Conv").input[2]
    model.graph.node.insert(0, helper.make_node("Add", [bias, bias], ["twice"], name="twice"))


def to_no_end(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["windows"], ["positive"], name="positive"))


def same_again(model: onnx.ModelProto) -> None:
    """A Transpose that leaves the order of axes as it is, in front of everything."""
    model.graph.node.insert(0, helper.make_node("Transpose", ["windows"], ["same"], name="same", perm=[0, 1, 2, 3]))
    model.graph.value_info.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, [1, 16, 64, 64]))
    for node in list(model.graph.node)[1:]:
        node.input[:] = ["same" if name == "windows" else name for name in node.input]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: setattr(first(m, "Sigmoid"), "op_type", "HardSigmoid"), "HardSigmoid"),
        (lambda m: setattr(m.opset_import[0], "version", 21), "False"),
        (stated_otherwise, "dim|shape"),
        (symbolic, "not static"),
        (lambda m: m.graph.value_info.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [1] * 9)), "9 <= 8"),
        (lambda m: m.graph.value_info.append(helper.make_tensor_value_info("v", TensorProto.DOUBLE, [1])), "11"),
    ],
)
def test_what_tensorrt_does_not_take_is_found_out(damage, message: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny("tattaka", "float32", "folded"))
    damage(model)
    with pytest.raises((AssertionError, onnx.shape_inference.InferenceError), match=message):
        check_for_tensorrt(model)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (constants_only, "twice could be a constant"),
        (to_no_end, "nobody reads positive"),
        (same_again, "same is a Reshape"),
    ],
)
def test_idle_nodes_are_found_out(damage, message: str) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny("tattaka", "float32", "folded"))
    damage(model)
    with pytest.raises(AssertionError, match=message):
        check_for_idle_nodes(model)


@pytest.mark.parametrize("arch", ARCHS)
def test_float16_is_everywhere_but_in_ends_and_statistics(arch: str) -> None:
    model = tiny(arch, "float16", "folded")
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.value_info]}
    types |= {i.name: i.data_type for i in model.graph.initializer}
    assert {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]} == {TensorProto.FLOAT}
    wide = collections.Counter(n.op_type for n in model.graph.node if types[n.input[0]] == TensorProto.FLOAT)
    if arch == "yu4u":
        norms = 1 + 4 + 3
        assert wide == {
            "ReduceMean": 2 * norms, "Sub": norms, "Mul": norms, "Add": norms, "Sqrt": norms, "Div": norms,
            "Cast": norms + 1,
        }  # fmt: skip
    else:
        attentions = 4 + 1
        assert wide == {"GlobalAveragePool": attentions, "Cast": attentions + 1}
    constants = {i.name: i for i in model.graph.initializer}
    kernels = [constants[n.input[1]] for n in model.graph.node if n.op_type == "Conv"]
    assert {k.data_type for k in kernels} == {TensorProto.FLOAT16}


@functools.cache
def paper(arch: str, upsampling: Upsampling) -> onnx.ModelProto:
    config = config_of(arch, "paper")
    network, params, stats = build(config, seed=None)
    return write_onnx(network.module(params, stats), config, batch=1, precision="float16", upsampling=upsampling)


def size_of_kernels(model: onnx.ModelProto) -> int:
    """In bytes, were they all different."""
    sizes = {i.name: math.prod(i.dims) * 2 for i in model.graph.initializer}
    return sum(sizes[n.input[1]] for n in model.graph.node if n.op_type == "Conv")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "upsampling", "nodes", "transposes", "giga"),
    [
        ("yu4u", "folded", 314, 6, 34.8),
        ("yu4u", "resize", 291, 3, 52.3),
        ("tattaka", "folded", 382, 8, 82.6),
        ("tattaka", "resize", 354, 5, 121.3),
    ],
)
def test_the_papers_graphs_are_what_the_documentation_says(
    arch: str, upsampling: Upsampling, nodes: int, transposes: int, giga: float
) -> None:
    model = paper(arch, upsampling)
    assert len(model.graph.node) == nodes
    assert sum(n.op_type == "Transpose" for n in model.graph.node) == transposes
    assert round(multiply_adds(model) / 1e9, 1) == giga
    row = rf"\| {nodes} \| {transposes} \| \d+ MB \| {giga} \|"
    assert re.search(row, (ROOT / "docs" / "t4.md").read_text(encoding="utf-8"))


def test_the_papers_graph_is_small() -> None:
    model = paper("yu4u", "resize")
    counts = collections.Counter(n.op_type for n in model.graph.node)
    assert len(model.graph.node) <= 330
    assert counts["Transpose"] <= 40
    assert counts["Transpose"] == 3
    assert counts["Resize"] == 3
    assert size_of_kernels(model) <= 185e6
    assert max(len(v.type.tensor_type.shape.dim) for v in model.graph.value_info) == TENSORRT_MAX_RANK


def test_the_other_graph_is_small() -> None:
    model = paper("tattaka", "folded")
    counts = collections.Counter(n.op_type for n in model.graph.node)
    assert counts["Transpose"] == 5 + 3
    depthwise = [n for n in model.graph.node if any(a.name == "group" for a in n.attribute)]
    assert len(depthwise) == 4


def test_the_file_says_what_it_is() -> None:
    model = tiny("yu4u", "float16", "resize", batch=3)
    facts = {p.key: p.value for p in model.metadata_props}
    assert from_plain(Yu4uConfig, json.loads(facts["config"]), "metadata") == config_of("yu4u", "tiny")
    assert (facts["precision"], facts["upsampling"], facts["batch"]) == ("float16", "resize", "3")
    assert model.producer_name == "jaxcryo"
    assert any(n.name.startswith("encoder.stages.1.blocks.0/") for n in model.graph.node)


def test_weights_beyond_float16() -> None:
    config = config_of("yu4u", "tiny")
    network, params, stats = random_weights(config)
    params["head.kernel"] = params["head.kernel"] * 1e8
    module = network.module(params, stats)
    with pytest.raises(InputError, match=r"head.*float16.*--precision float32"):
        write_onnx(module, config, batch=1, precision="float16", upsampling="folded")
    write_onnx(module, config, batch=1, precision="float32", upsampling="folded")


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        emit(object(), None)  # type: ignore[arg-type]
    graph = Graph("float16")
    wide = graph.input("windows", (1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"Add.*float16.*float32"):
        graph.add(wide, graph.cast(wide, "float16"))
    with pytest.raises(ValueError, match=r"\b9\b"):
        graph.reshape(wide, (1, 1, 1, 1, 1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"\b7\b"):
        graph.reshape(wide, (7,))
