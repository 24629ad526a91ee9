"""How the two networks become ONNX nodes."""

from __future__ import annotations

import numpy as np

import jaxcryo.convert.emit_encoders  # noqa: F401  # registers the encoders with `emit`
from jaxcryo.convert.emit_layers import (
    NetworkGraph,
    emit,
    emit_conv,
    global_mean,
    pixel_shuffle,
    pool_depth,
    volume,
    weights,
)
from jaxcryo.convert.graph import Value
from jaxcryo.models.layers import Conv
from jaxcryo.models.tattaka.network import (
    JointPyramidUpsampling,
    SeparableConv,
    SpatialChannelAttention,
    Tattaka,
    UpBlock,
)
from jaxcryo.models.yu4u.network import Yu4u, depth_pools


@emit.register
def _yu4u(module: Yu4u, graph: NetworkGraph, windows: Value) -> Value:
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
    """The convolution of each slice with its neighbours, (b, d, h, w) to (b·d, c, h2, w2).

    The slices are its input channels and (slice, channel) its outputs, with zeros where a slice is no neighbour: three
    times the multiplications of a share that is below one in a hundred, but no gathering and no transposition.
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
def _tattaka(module: Tattaka, graph: NetworkGraph, windows: Value) -> Value:
    b, d, h, w = windows.shape
    with graph.scope("encoder.stem"):
        x = emit(module.encoder.stem, graph, graph.reshape(windows, (b * d, 1, h, w)))
        x = pool_depth(graph, x, 2)
    maps = [x]
    for n, stage in enumerate(module.encoder.stages):
        with graph.scope("encoder.stages", n):
            x = emit(stage, graph, x)
            x = pool_depth(graph, x, 2) if n == 0 else _mix_depth(graph, x, module.config.depth_pool_counts_padding)
        maps.append(x)
    with graph.scope("jpu"):
        y = emit(module.jpu, graph, *(volume(graph, m) for m in maps[2:]))
    for n, (block, skip) in enumerate(zip(module.decoder, [maps[1], maps[0], None], strict=False)):
        with graph.scope("decoder", n):
            y = emit(block, graph, y, None if skip is None else volume(graph, skip))
    with graph.scope("head"):
        return pixel_shuffle(graph, emit_conv(graph, y, module.head), module.head_stride)


def _mix_depth(graph: NetworkGraph, x: Value, counts_padding: bool) -> Value:
    """The mean over each slice and its neighbours: a 1x1 convolution whose channels are the slices."""
    n, c, h, w = x.shape
    depth = n // graph.batch
    near = np.abs(np.arange(depth)[:, None] - np.arange(depth)) <= 1
    mean = near / (3 if counts_padding else near.sum(axis=1, keepdims=True))
    slices = graph.reshape(x, (graph.batch, depth, c * h, w))
    mixed = graph.conv(slices, mean[:, :, None, None], None, padding=[(0, 0)] * 2)
    return graph.reshape(mixed, x.shape)


@emit.register
def _joint_pyramid_upsampling(module: JointPyramidUpsampling, graph: NetworkGraph, *maps: Value) -> Value:
    projected = []
    for n, (layer, x) in enumerate(zip(module.project, maps, strict=True)):
        with graph.scope("project", n):
            y = emit(layer, graph, x)
            factors = (2**n, 2**n) if y.rank == 4 else (1, 2**n, 2**n)
            projected.append(graph.upsample(y, factors) if n else y)
    joined = graph.concat(projected, axis=1)
    seen = []
    for n, branch in enumerate(module.branches):
        with graph.scope("branches", n):
            seen.append(emit(branch, graph, joined))
    return graph.concat(seen, axis=1)


@emit.register
def _separable_conv(module: SeparableConv, graph: NetworkGraph, x: Value) -> Value:
    y = emit_conv(graph, x, module.depthwise, module.norm1)
    return graph.relu(emit_conv(graph, y, module.pointwise, module.norm2))


@emit.register
def _up_block(module: UpBlock, graph: NetworkGraph, x: Value, skip: Value | None) -> Value:
    y = emit(module.block, graph, x, skip)
    with graph.scope("attention"):
        return emit(module.attention, graph, y)


@emit.register
def _attention(module: SpatialChannelAttention, graph: NetworkGraph, x: Value) -> Value:
    hidden = graph.relu(emit_conv(graph, global_mean(graph, x), module.fc1))
    channel = graph.sigmoid(emit_conv(graph, hidden, module.fc2))
    spatial = graph.sigmoid(emit_conv(graph, x, module.spatial))
    return graph.mul(x, graph.add(channel, spatial))
