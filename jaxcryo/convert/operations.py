"""What an ONNX graph holds and computes, counted from its nodes."""

from __future__ import annotations

import math

import onnx
from onnx import helper

from jaxcryo.errors import InputError

_Shapes = dict[str, tuple[int, ...]]


def multiply_adds(model: onnx.ModelProto) -> int:
    """Of all convolutions and matrix products in one run of the model, its whole batch.

    For each element that such a node writes, the elements that it sums over: taps that fall on padding count. What the
    other nodes compute is left out.

    Raises:
        InputError: the graph has sizes that are not static, or convolutions of a kind that is not counted.
    """
    shapes = _shapes(model)
    return sum(_of_node(node, shapes) for node in model.graph.node)


def described(model: onnx.ModelProto) -> str:
    """The counts for people: `202 nodes, 3 Transposes, 34.8 G multiply-adds a window`."""
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
    """Of all values; those that the file does not state are inferred."""
    stated = {v.name for v in (*model.graph.value_info, *model.graph.output) if v.type.tensor_type.HasField("shape")}
    if not all(name in stated for node in model.graph.node for name in node.output if name):
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    # A size that has no number is 0 here.
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
