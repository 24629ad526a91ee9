"""A small builder of ONNX graphs: static shapes, constants stored once, one precision for the arithmetic."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from jaxcryo.config import Precision
from jaxcryo.errors import InputError

OPSET = 20
"""The last opset that TensorRT 10.0 reads, and the first with Gelu."""
IR_VERSION = 9
MAX_RANK = 8
"""TensorRT's limit."""

_ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: Precision

    @property
    def rank(self) -> int:
        """The number of its axes."""
        return len(self.shape)


class Graph:
    """Collects nodes in the order of their computation; every method adds at most one node and returns its output.

    Arithmetic is in `precision`; a constant takes the dtype of the value it meets. Names are those of the scopes in
    which the nodes were made, so that a profiler's line can be traced to a module.
    """

    def __init__(self, precision: Precision):
        self.precision: Precision = precision
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, onnx.TensorProto] = {}
        self._values: dict[str, Value] = {}
        self._inputs: list[Value] = []
        self._scopes: list[str] = []

    @contextlib.contextmanager
    def scope(self, *names: str | int) -> Iterator[None]:
        """Nodes made within it have its name as a prefix."""
        self._scopes.append(".".join(str(n) for n in names))
        yield
        self._scopes.pop()

    def input(self, name: str, shape: Sequence[int]) -> Value:
        """An input of the graph; float32 whatever the precision."""
        value = Value(name=name, shape=tuple(shape), dtype="float32")
        self._inputs.append(value)
        return value

    def cast(self, x: Value, dtype: Precision) -> Value:
        """x itself if it has that dtype."""
        return x if x.dtype == dtype else self._node("Cast", [x], x.shape, dtype=dtype, to=_ELEMENT[dtype])

    def conv(
        self,
        x: Value,
        kernel: NDArray[np.floating[Any]],
        bias: NDArray[np.floating[Any]] | None,
        *,
        stride: int = 1,
        padding: Sequence[tuple[int, int]],
        dilation: int = 1,
        groups: int = 1,
    ) -> Value:
        """A convolution; kernel (outputs, inputs / groups, *space), padding (before, after) for each axis."""
        taps = kernel.shape[2:]
        space = [
            (size + before + after - dilation * (k - 1) - 1) // stride + 1
            for size, k, (before, after) in zip(x.shape[2:], taps, padding, strict=True)
        ]
        constants = [self._weight(kernel, x.dtype)] + ([] if bias is None else [self._weight(bias, x.dtype)])
        optional: dict[str, Any] = {
            "strides": [stride] * len(taps) if stride > 1 else None,
            "dilations": [dilation] * len(taps) if dilation > 1 else None,
            "pads": [p[0] for p in padding] + [p[1] for p in padding] if any(map(any, padding)) else None,
            "group": groups if groups > 1 else None,
        }
        attributes = {k: v for k, v in optional.items() if v is not None}
        shape = (x.shape[0], kernel.shape[0], *space)
        return self._node("Conv", [x, *constants], shape, kernel_shape=list(taps), **attributes)

    def add(self, x: Value, y: Value | NDArray[np.floating[Any]]) -> Value:
        """The broadcast sum."""
        return self._binary("Add", x, y)

    def mul(self, x: Value, y: Value | NDArray[np.floating[Any]]) -> Value:
        """The broadcast product."""
        return self._binary("Mul", x, y)

    def sub(self, x: Value, y: Value | NDArray[np.floating[Any]]) -> Value:
        """The broadcast difference."""
        return self._binary("Sub", x, y)

    def div(self, x: Value, y: Value | NDArray[np.floating[Any]]) -> Value:
        """The broadcast quotient."""
        return self._binary("Div", x, y)

    def sqrt(self, x: Value) -> Value:
        """The square root."""
        return self._node("Sqrt", [x], x.shape)

    def relu(self, x: Value) -> Value:
        """max(x, 0)."""
        return self._node("Relu", [x], x.shape)

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + exp(-x))."""
        return self._node("Sigmoid", [x], x.shape)

    def gelu(self, x: Value) -> Value:
        """The exact GELU, with the error function."""
        return self._node("Gelu", [x], x.shape, approximate="none")

    def mean(self, x: Value, axis: int, *, keep: bool = False) -> Value:
        """The mean over an axis, which is dropped unless it is kept with size 1."""
        shape = (*x.shape[:axis], *([1] if keep else []), *x.shape[axis + 1 :])
        return self._node("ReduceMean", [x, self._integers([axis])], shape, keepdims=int(keep))

    def global_mean(self, x: Value) -> Value:
        """The mean over space; its axes stay, with size 1."""
        return self._node("GlobalAveragePool", [x], (*x.shape[:2], *[1] * (x.rank - 2)))

    def mean_pool(self, x: Value, factor: int) -> Value:
        """Means over non-overlapping squares of a 2-D map."""
        shape = (*x.shape[:2], *(s // factor for s in x.shape[2:]))
        sides = [factor] * (x.rank - 2)
        return self._node("AveragePool", [x], shape, kernel_shape=sides, strides=sides)

    def upsample(self, x: Value, factors: Sequence[int]) -> Value:
        """Nearest-neighbor, by whole factors along the spatial axes."""
        scales = self._constant(np.asarray([1, 1, *factors], np.float32))
        shape = (*x.shape[:2], *(s * f for s, f in zip(x.shape[2:], factors, strict=True)))
        return self._node(
            "Resize", [x, "", scales], shape, mode="nearest", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )  # fmt: skip

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """The values concatenated along an axis."""
        first = values[0].shape
        shape = (*first[:axis], sum(v.shape[axis] for v in values), *first[axis + 1 :])
        return self._node("Concat", list(values), shape, axis=axis)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """x itself if it has that shape."""
        shape = tuple(shape)
        if math.prod(shape) != math.prod(x.shape):
            raise ValueError(f"{x.shape} cannot be reshaped to {shape}")
        return x if shape == x.shape else self._node("Reshape", [x, self._integers(shape)], shape)

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        """The axes in another order."""
        return self._node("Transpose", [x], tuple(x.shape[i] for i in order), perm=list(order))

    def model(self, output: Value, name: str, *, title: str, doc: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model: `output` is its one output, called `name`."""
        last = self._nodes[-1]
        if list(last.output) != [output.name]:
            raise ValueError(f"{output.name} is not the last value of the graph")
        last.output[0] = name
        inner = [_info(v.name, v) for v in self._values.values() if v.name != output.name]
        graph = helper.make_graph(
            self._nodes,
            title,
            [_info(v.name, v) for v in self._inputs],
            [_info(name, output)],
            initializer=list(self._constants.values()),
            value_info=inner,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="jaxcryo",
            doc_string=doc,
        )
        helper.set_model_props(model, metadata)
        return model

    def _binary(self, op: str, x: Value, y: Value | NDArray[np.floating[Any]]) -> Value:
        other = y if isinstance(y, Value) else self._weight(y, x.dtype)
        return self._node(op, [x, other], np.broadcast_shapes(x.shape, y.shape))

    def _node(
        self, op: str, inputs: Sequence[Value | str], shape: tuple[int, ...], *, dtype: Precision | None = None,
        **attributes: Any,
    ) -> Value:  # fmt: skip
        if len(shape) > MAX_RANK:
            raise ValueError(f"{op} gives a tensor of rank {len(shape)}; TensorRT takes at most {MAX_RANK}")
        types = {v.dtype for v in inputs if isinstance(v, Value)}
        if len(types) != 1:
            raise ValueError(f"{op} mixes {' and '.join(sorted(types))}")
        name = self._fresh(op)
        value = Value(name=name, shape=shape, dtype=dtype or types.pop())
        names = [v.name if isinstance(v, Value) else v for v in inputs]
        self._nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        self._values[name] = value
        return value

    def _fresh(self, op: str) -> str:
        stem = "/".join([".".join(self._scopes), op]) if self._scopes else op
        name, n = stem, 1
        while name in self._values:
            n += 1
            name = f"{stem}_{n}"
        return name

    def _weight(self, array: NDArray[np.floating[Any]], dtype: Precision) -> str:
        if dtype == "float16" and (largest := float(np.abs(array).max(initial=0))) > _FLOAT16_MAX:
            raise InputError(
                f"{'.'.join(self._scopes)}: a weight of {largest:.3g} does not fit in float16, whose largest number is "
                f"{_FLOAT16_MAX:.0f}; write this model with --precision float32"
            )
        return self._constant(array.astype(dtype))

    def _integers(self, values: Sequence[int]) -> str:
        return self._constant(np.asarray(values, np.int64))

    def _constant(self, array: NDArray[Any]) -> str:
        array = np.ascontiguousarray(array)
        digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
        key = digest.digest()
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, _ELEMENT[value.dtype], value.shape)
