"""A copy of a model that answers with the largest magnitude of each of its layers' values."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

_GROUP = re.compile(r"[^/]*?\.\d+(?=[./])|[^/]+")
"""A value's outermost numbered module, `encoder.stages.0` or `decoder.2`; else its module, `head`."""


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
