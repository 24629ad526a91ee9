"""A network as an ONNX model made for TensorRT and OpenVINO."""

from __future__ import annotations

import json

import onnx

import jaxcryo.convert.emit_networks  # noqa: F401  # registers the networks with `emit`
from jaxcryo.config import ModelConfig
from jaxcryo.convert.emit_layers import NetworkGraph, Upsampling, emit
from jaxcryo.convert.graph import Precision
from jaxcryo.models.tattaka.network import Tattaka
from jaxcryo.models.yu4u.network import Yu4u
from jaxcryo.serialize import to_plain

INPUT, OUTPUT = "windows", "heatmaps"


def write_onnx(
    module: Yu4u | Tattaka,
    config: ModelConfig,
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
    windows = graph.input(INPUT, (batch, *config.patch_zyx))
    heatmaps = graph.cast(emit(module, graph, graph.cast(windows, precision)), "float32")
    title = type(module).__name__.lower()
    return graph.model(
        heatmaps,
        OUTPUT,
        title=title,
        doc=f"{title}: tomogram windows (b, d, h, w) to particle heatmaps (b, c, d, h, w)",
        metadata={
            "config": json.dumps(to_plain(config)),
            "batch": str(batch),
            "precision": precision,
            "upsampling": upsampling,
        },
    )
