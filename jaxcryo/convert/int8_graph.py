"""A float32 network as an int8 one, by ONNX Runtime's static quantization.

QuantizeLinear and DequantizeLinear are written in the one form that both OpenVINO and TensorRT (from 10 on) read:
symmetric, weights per output channel, activations per tensor, only inputs of convolutions quantized, biases in float.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import helper

from jaxcryo.convert.comparison import Windows
from jaxcryo.convert.onnx_write import node_multiply_adds
from jaxcryo.errors import InputError
from jaxcryo.runtime.opened import INPUT

_LEAST_SHARE = 1e-3
"""The least share of the multiply-adds: a layer with fewer, such as attention on means, gains nothing."""
_OPERATORS = ["Conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """The unit that is quantized or left in float: a module's convolutions of the same input."""

    name: str
    """The name of its first node."""
    nodes: tuple[str, ...]
    share: float
    """Its share of the network's multiply-adds."""


def quantizable(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """In the order of computation: all except the first convolution, the last (the head) and depthwise ones."""
    counts = {n.name: count for n, count in zip(model.graph.node, node_multiply_adds(model), strict=True)}
    total = sum(counts.values())
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    inner = [n for n in convolutions[1:-1] if not any(a.name == "group" and a.i > 1 for a in n.attribute)]
    layers = []
    for _, nodes in itertools.groupby(inner, key=lambda n: (n.name.rpartition("/")[0], n.input[0])):
        names = tuple(node.name for node in nodes)
        layers.append(Layer(name=names[0], nodes=names, share=sum(counts[n] for n in names) / total))
    return tuple(layer for layer in layers if layer.share >= _LEAST_SHARE)


class Calibration:
    """A network, and the ranges of its values on representative windows.

    Raises:
        InputError: ONNX Runtime is not installed.
    """

    def __init__(self, model: onnx.ModelProto, windows: Windows, *, batch: int) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise InputError("quantization needs onnxruntime, which is not installed: pip install onnxruntime")
        from onnxruntime.quantization import CalibrationMethod, create_calibrator

        self._model = model
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "float32.onnx"
            onnx.save(model, path)
            # The largest values are the particles: percentiles would clip them, and lose most picks.
            calibrator = create_calibrator(
                path,
                _OPERATORS,
                augmented_model_path=str(path.with_name("watched.onnx")),
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"symmetric": True},
            )
            calibrator.collect_data(_reader(_batches(windows, batch)))
            self._ranges = calibrator.compute_data()

    def quantized(self, layers: Sequence[Layer]) -> onnx.ModelProto:
        """The network with these layers in int8."""
        from onnxruntime.quantization import QDQQuantizer, QuantType

        assert layers, "to ONNX Runtime none means all"
        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        quantizer = QDQQuantizer(
            copy,
            per_channel=True,
            # CPUs without VNNI add products of 8 and 8 bits up in 16, which overflows; 7 bits of weight do not.
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=[name for layer in layers for name in layer.nodes],
            nodes_to_exclude=[],
            op_types_to_quantize=_OPERATORS,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": _OPERATORS,
                "QuantizeBias": False,
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        model: onnx.ModelProto = quantizer.model.model
        facts = {p.key: p.value for p in model.metadata_props}
        del model.metadata_props[:]
        helper.set_model_props(model, facts | {"precision": "int8"})
        return model


def _batches(windows: Windows, size: int) -> Iterator[dict[str, Windows]]:
    """All windows; the last batch is filled with the first ones."""
    for first in range(0, len(windows), size):
        yield {INPUT: windows.take(range(first, first + size), axis=0, mode="wrap")}


def _reader(batches: Iterator[dict[str, Windows]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Windows] | None:
            return next(batches, None)

    return Reader()
