"""yu4u's network as ONNX nodes; slices are in the batch, channels first."""

from __future__ import annotations

import numpy as np

from jaxcryo.models.layers import Conv, LayerNorm
from jaxcryo.models.onnx_graph import Value
from jaxcryo.models.onnx_layers import (
    Array,
    NetworkGraph,
    emit,
    emit_conv,
    outputs_first,
    pixel_shuffle,
    pool_depth,
    volume,
    weights,
)
from jaxcryo.models.yu4u.encoder import ConvNeXtBlock, ConvNeXtStage
from jaxcryo.models.yu4u.network import Yu4u, depth_pools

_LAYER_NORM_EPSILON = 1e-6
"""The epsilon of `LayerNorm`."""


def write(module: Yu4u, graph: NetworkGraph, windows: Value) -> Value:
    """Adds the network's nodes; returns its heatmaps."""
    x, maps = windows, []
    pools = depth_pools(windows.shape[1:])
    for n, (stage, pool, lateral) in enumerate(zip(module.encoder.stages, pools, module.lateral, strict=True)):
        with graph.scope("encoder.stages", n):
            if stage.stem:
                x = _slices_conv(graph, x, stage.conv, module.config.neighbors)
            x = pool_depth(graph, emit(stage, graph, x), pool)
        with graph.scope("lateral", n):
            y = volume(graph, x)
            for m, layer in enumerate(lateral):
                with graph.scope(m):
                    y = emit(layer, graph, y)
        maps.append(y)
    y = maps.pop()
    for n, block in enumerate(module.decoder):
        with graph.scope("decoder", n):
            y = emit(block, graph, y, maps.pop())
    with graph.scope("head"):
        return pixel_shuffle(graph, emit_conv(graph, y, module.head), module.config.head_stride)


def _slices_conv(graph: NetworkGraph, windows: Value, conv: Conv, neighbors: int) -> Value:
    """The convolution of each slice with its neighbors, (b, d, h, w) to (b·d, c, h2, w2).

    The slices are its input channels and (slice, channel) its outputs, with zeros where a slice is not a neighbor.
    This triples the multiplications of a part below one percent, but needs no gathering and no transposition.
    """
    b, depth = windows.shape[:2]
    kernel = weights(conv.kernel)
    side, outputs = kernel.shape[0], kernel.shape[-1]
    banded = np.zeros((depth, outputs, depth, side, side))
    for d in range(depth):
        for channel, neighbor in enumerate(range(d - neighbors, d + neighbors + 1)):
            if 0 <= neighbor < depth:
                banded[d, :, neighbor] = np.moveaxis(kernel[:, :, channel], -1, 0)
    bias = None if conv.bias is None else np.tile(weights(conv.bias), depth)
    joined = banded.reshape(depth * outputs, depth, side, side)
    x = graph.conv(windows, joined, bias, stride=conv.stride, padding=[(0, 0)] * 2)
    return graph.reshape(x, (b * depth, outputs, *x.shape[2:]))


@emit.register
def _conv_next_stage(module: ConvNeXtStage, graph: NetworkGraph, x: Value) -> Value:
    """The stem's convolution is left to the caller, who knows where its channels come from."""
    if module.stem:
        columns = (1, -1, 1, 1)
        x = graph.mul(_standardized(graph, x), weights(module.norm.scale).reshape(columns))
        x = graph.add(x, weights(module.norm.bias).reshape(columns))
    else:
        kernel, bias = _after(module.norm, module.conv)
        x = _unpadded_conv(graph, _standardized(graph, x), kernel, bias, stride=module.conv.stride)
    for n, block in enumerate(module.blocks):
        with graph.scope("blocks", n):
            x = emit(block, graph, x)
    return x


@emit.register
def _conv_next_block(module: ConvNeXtBlock, graph: NetworkGraph, x: Value) -> Value:
    y = _standardized(graph, emit_conv(graph, x, module.conv_dw))
    y = graph.gelu(_unpadded_conv(graph, y, *_after(module.norm, module.fc1)))
    gamma = weights(module.gamma)
    y = _unpadded_conv(graph, y, weights(module.fc2.kernel) * gamma, _bias(module.fc2) * gamma)
    return graph.add(x, y)


def _standardized(graph: NetworkGraph, x: Value) -> Value:
    """LayerNorm without its scale and bias, over the channels in their place, in float32 whatever the precision.

    ONNX's LayerNormalization would need the channels last, between two Transposes.
    """
    wide = graph.cast(x, "float32")
    centered = graph.sub(wide, graph.mean(wide, axis=1, keep=True))
    variance = graph.mean(graph.mul(centered, centered), axis=1, keep=True)
    deviation = graph.sqrt(graph.add(variance, np.asarray([_LAYER_NORM_EPSILON])))
    return graph.cast(graph.div(centered, deviation), x.dtype)


def _after(norm: LayerNorm, conv: Conv) -> tuple[Array, Array]:
    """Kernel and bias of an unpadded convolution, with the scale and bias of the norm before it folded in."""
    kernel = weights(conv.kernel)
    return kernel * weights(norm.scale)[:, None], _bias(conv) + (weights(norm.bias) @ kernel).sum(axis=(0, 1))


def _bias(conv: Conv) -> Array:
    return np.zeros(weights(conv.kernel).shape[-1]) if conv.bias is None else weights(conv.bias)


def _unpadded_conv(graph: NetworkGraph, x: Value, kernel: Array, bias: Array, *, stride: int = 1) -> Value:
    return graph.conv(x, outputs_first(kernel), bias, stride=stride, padding=[(0, 0)] * 2)
