"""Multiply-adds are those that a loop over the arithmetic would do."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jaxcryo.convert.onnx_write import described, multiply_adds, write_onnx
from jaxcryo.errors import InputError
from jaxcryo.models import build
from jaxcryo.recipes import recipe


def model_of(nodes, shape, constants, *, batch=2) -> onnx.ModelProto:
    """A graph without stated shapes inside; x is (batch, *shape)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "test", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 20)]
    )


def test_convolutions_of_any_kind() -> None:
    conv = helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 1, 1, 1], strides=[2, 2])
    relu = helper.make_node("Relu", ["h"], ["r"])
    depthwise = helper.make_node("Conv", ["r", "b"], ["y"], group=6)
    model = model_of([conv, relu, depthwise], (3, 8, 10), {"a": (6, 3, 3, 3), "b": (6, 1, 2, 2)})
    assert multiply_adds(model) == 2 * (6 * 4 * 5) * (3 * 9) + 2 * (6 * 3 * 4) * 4


def test_matrix_products() -> None:
    product = helper.make_node("MatMul", ["x", "a"], ["y"])
    assert multiply_adds(model_of([product], (5, 7), {"a": (7, 4)})) == 2 * 5 * 4 * 7
    gemm = helper.make_node("Gemm", ["x", "a"], ["y"], transA=1, transB=1)
    assert multiply_adds(model_of([gemm], (7,), {"a": (4, 5)}, batch=5)) == 7 * 4 * 5


def test_what_cannot_be_counted_is_refused() -> None:
    conv = helper.make_node("Conv", ["x", "a"], ["y"], name="first")
    with pytest.raises(InputError, match=r"first.*\by\b"):
        multiply_adds(model_of([conv], (3, 8, 8), {"a": (6, 3, 3, 3)}, batch="n"))
    transposed = helper.make_node("ConvTranspose", ["x", "a"], ["y"], name="up")
    with pytest.raises(InputError, match=r"up.*ConvTranspose"):
        multiply_adds(model_of([transposed], (3, 8, 8), {"a": (3, 6, 3, 3)}))


def test_folded_upsampling_saves_multiplications_and_the_batch_counts() -> None:
    config = recipe("yu4u", "tiny").model
    network, params, stats = build(config, seed=None)
    module = network.module(params, stats)

    def written(upsampling, batch):
        return write_onnx(module, config, batch=batch, precision="float16", upsampling=upsampling)

    folded, resized = written("folded", 1), written("resize", 1)
    assert multiply_adds(folded) < multiply_adds(resized)
    assert multiply_adds(written("folded", 3)) == 3 * multiply_adds(folded)
    line = described(resized)
    assert (
        line == described(written("resize", 1)) and "3 Transposes" in line and line.endswith("multiply-adds a window")
    )
    assert described(written("folded", 3)).split(", ")[-1] == described(folded).split(", ")[-1]
    bare = onnx.ModelProto()
    bare.CopyFrom(folded)
    del bare.graph.value_info[:]
    assert multiply_adds(bare) == multiply_adds(folded)
