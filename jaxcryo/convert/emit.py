"""A network as an ONNX model made for TensorRT and OpenVINO."""

from __future__ import annotations

import json

import onnx
from flax import nnx

from jaxcryo.config import NetworkConfig, Precision
from jaxcryo.models import architecture
from jaxcryo.models.onnx_layers import NetworkGraph, Upsampling
from jaxcryo.runtime.engine import INPUT, OUTPUT
from jaxcryo.serialize import to_plain


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
