"""Writes a network as an ONNX model for TensorRT and OpenVINO; counts what is in it, and how large its values get."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

import onnx
from flax import nnx
from onnx import TensorProto, helper

from jaxcryo.config import NetworkConfig, Precision
from jaxcryo.errors import InputError
from jaxcryo.models import architecture
from jaxcryo.models.onnx_layers import NetworkGraph, Upsampling
from jaxcryo.runtime.opened import INPUT, OUTPUT
from jaxcryo.serialize import to_plain

_Shapes = dict[str, tuple[int, ...]]
_GROUP = re.compile(r"[^/]*?\.\d+(?=[./])|[^/]+")
"""A value's outermost numbered module, `encoder.stages.0` or `decoder.2`; else its module, `head`."""


def write_onnx(
    module: nnx.Module,
    config: NetworkConfig,
    *,
    batch: int,
    precision: Precision,
    upsampling: Upsampling,
) -> onnx.ModelProto:
    """The network in evaluation mode: `windows` (b, d, h, w) to `heatmaps` (b, c, d, h, w), both float32.

    `upsampling` says how nearest upsampling before a convolution is expressed: as the operator (`resize`), or `folded`
    into the convolution, which then runs at the low resolution.

    Raises:
        InputError: the config's window does not suit the network, or weights do not fit float16.
    """
    graph = NetworkGraph(batch=batch, precision=precision, upsampling=upsampling)
    write = architecture(config.arch).onnx
    windows = graph.input(INPUT, (batch, *config.patch_zyx))
    heatmaps = graph.cast(write(module, graph, graph.cast(windows, precision)), "float32")
    return graph.model(
        heatmaps,
        OUTPUT,
        title=config.arch,
        doc=f"{config.arch}: tomogram windows (b, d, h, w) to particle heatmaps (b, c, d, h, w)",
        metadata={
            "config": json.dumps(to_plain(config)),
            "batch": str(batch),
            "precision": precision,
            "upsampling": upsampling,
        },
    )


def multiply_adds(model: onnx.ModelProto) -> int:
    """The multiply-adds of all convolutions and matrix products in one run of the model, over its whole batch.

    Counts, for each element that such a node writes, the elements that it sums over, including padding. Other nodes are
    left out.

    Raises:
        InputError: the graph has sizes that are not static, or convolutions of a kind that is not counted.
    """
    return sum(node_multiply_adds(model))


def node_multiply_adds(model: onnx.ModelProto) -> list[int]:
    """The multiply-adds of every node, in their order; raises as `multiply_adds` does."""
    shapes = _shapes(model)
    return [_of_node(node, shapes) for node in model.graph.node]


def described(model: onnx.ModelProto) -> str:
    """The counts in words: `202 nodes, 3 Transposes, 34.8 G multiply-adds a window`."""
    nodes = model.graph.node
    transposes = sum(node.op_type == "Transpose" for node in nodes)
    windows = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return (
        f"{len(nodes)} nodes, {transposes} Transpose{'s' * (transposes != 1)}, "
        f"{_short(multiply_adds(model) / windows)} multiply-adds a window"
    )


def _of_node(node: onnx.NodeProto, shapes: _Shapes) -> int:
    if node.op_type == "Conv":
        return math.prod(_shape(node, node.output[0], shapes)) * math.prod(_shape(node, node.input[1], shapes)[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and helper.get_attribute_value(a) for a in node.attribute)
        summed = _shape(node, node.input[0], shapes)[0 if transposed else -1]
        return math.prod(_shape(node, node.output[0], shapes)) * summed
    if node.op_type in ("ConvTranspose", "DeformConv", "ConvInteger", "MatMulInteger", "Einsum", "LSTM", "GRU", "RNN"):
        raise InputError(
            f"{node.name}: the multiply-adds of {node.op_type} are not counted here; expected Conv, MatMul"
        )
    return 0


def _shapes(model: onnx.ModelProto) -> _Shapes:
    """The shapes of all values; those that the file does not state are inferred."""
    stated = {v.name for v in (*model.graph.value_info, *model.graph.output) if v.type.tensor_type.HasField("shape")}
    if not all(name in stated for node in model.graph.node for name in node.output if name):
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    # A size without a number is 0 here.
    shapes = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    return shapes | {i.name: tuple(i.dims) for i in graph.initializer}


def _shape(node: onnx.NodeProto, name: str, shapes: _Shapes) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if not shape or not all(shape):
        raise InputError(f"{node.name or node.op_type}: the size of {name} is not static; write the model with a batch")
    return shape


def _short(count: float) -> str:
    return f"{count / 1e9:.1f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def probe(model: onnx.ModelProto, watched: Iterable[str]) -> onnx.ModelProto:
    """The model with one output only, `largest` (n): max |value| of each watched value, in their order."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    maxima = []
    one = helper.make_tensor("probe/one", TensorProto.INT64, [1], [1])
    for n, name in enumerate(watched):
        scalar, single = f"probe/{n}/max", f"probe/{n}"
        graph.node.append(helper.make_node("Abs", [name], [f"{scalar}/abs"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{scalar}/abs"], [scalar], keepdims=0))
        graph.node.append(helper.make_node("Reshape", [scalar, one.name], [single]))
        maxima.append(single)
    graph.initializer.append(one)
    graph.node.append(helper.make_node("Concat", maxima, ["largest"], axis=0))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("largest", TensorProto.FLOAT, [len(maxima)]))
    return copy


def float16_values(model: onnx.ModelProto, twin: onnx.ModelProto) -> list[str]:
    """Values that are float16 in `model` and exist, as float32, in its `twin`."""
    there = {value.name for value in twin.graph.value_info}
    return [
        value.name
        for value in model.graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16 and value.name in there
    ]


def group_of(name: str) -> str:
    """The module that a value is reported under."""
    match = _GROUP.match(name)
    return match.group() if match else name
