"""tattaka's network as ONNX nodes; the encoder's slices are in the batch, channels first."""

from __future__ import annotations

import numpy as np

from jaxcryo.models.onnx_graph import Value
from jaxcryo.models.onnx_layers import (
    NetworkGraph,
    emit,
    emit_conv,
    folded,
    global_mean,
    joined_conv,
    joined_upsampled,
    pixel_shuffle,
    pool_depth,
    volume,
    volume_conv,
)
from jaxcryo.models.tattaka.encoder import Bottleneck, ConvNorm, ResNetRSStage, ResNetRSStem, SqueezeExcite
from jaxcryo.models.tattaka.network import (
    AtrousPyramidPooling,
    JointPyramidUpsampling,
    SeparableConv,
    SpatialChannelAttention,
    Tattaka,
    UpBlock,
)


def write(module: Tattaka, graph: NetworkGraph, windows: Value) -> Value:
    """Adds the network's nodes; returns its heatmaps."""
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
    if module.aspp is not None:
        with graph.scope("aspp"):
            y = emit(module.aspp, graph, y)
    for n, (block, skip) in enumerate(zip(module.decoder, [maps[1], maps[0], None], strict=False)):
        with graph.scope("decoder", n):
            y = emit(block, graph, y, None if skip is None else volume(graph, skip))
    with graph.scope("head"):
        return pixel_shuffle(graph, emit_conv(graph, y, module.head), module.head_stride)


def _mix_depth(graph: NetworkGraph, x: Value, counts_padding: bool) -> Value:
    """The mean over each slice and its neighbors: a 1x1 convolution whose channels are the slices."""
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
    joined = graph.concat(projected[::-1] if module.coarsest_first else projected, axis=1)
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
    if module.before is None:
        y = emit(module.block, graph, x, skip)
    else:
        y = _block_of_weighted(module, module.before, graph, x, skip)
    if module.attention is None:
        return y
    with graph.scope("attention"):
        return emit(module.attention, graph, y)


def _block_of_weighted(
    module: UpBlock, before: SpatialChannelAttention, graph: NetworkGraph, x: Value, skip: Value | None
) -> Value:
    """The block on the weighted concatenation, which then has to be made at the high resolution."""
    joined = joined_upsampled(graph, x, skip, module.block.up)
    with graph.scope("before"):
        joined = emit(before, graph, joined)
    with graph.scope("up"):
        y = graph.relu(joined_conv(graph, joined, module.block.up, module.block.norm))
    with graph.scope("refine"):
        return emit(module.block.refine, graph, y)


@emit.register
def _atrous_pyramid_pooling(module: AtrousPyramidPooling, graph: NetworkGraph, x: Value) -> Value:
    """The mean's share of the last convolution is the same everywhere: computed once, and added."""
    parts = [graph.relu(emit_conv(graph, x, module.near, module.near_norm))]
    for conv, norm in zip(module.far, module.far_norms, strict=True):
        parts.append(graph.relu(emit_conv(graph, x, conv, norm)))
    whole = graph.relu(emit_conv(graph, global_mean(graph, x), module.whole, module.whole_norm))
    kernel, bias = folded(module.project, module.norm)
    inputs = sum(part.shape[1] for part in parts)
    local = volume_conv(graph, graph.concat(parts, axis=1), kernel[..., :inputs, :], bias)
    return graph.relu(graph.add(local, volume_conv(graph, whole, kernel[..., inputs:, :], None)))


@emit.register
def _attention(module: SpatialChannelAttention, graph: NetworkGraph, x: Value) -> Value:
    hidden = graph.relu(emit_conv(graph, global_mean(graph, x), module.fc1))
    channel = graph.sigmoid(emit_conv(graph, hidden, module.fc2))
    spatial = graph.sigmoid(emit_conv(graph, x, module.spatial))
    return graph.mul(x, graph.add(channel, spatial))


@emit.register
def _stem(module: ResNetRSStem, graph: NetworkGraph, x: Value) -> Value:
    for name, layer in (("conv1", module.conv1), ("conv2", module.conv2), ("conv3", module.conv3)):
        with graph.scope(name):
            x = graph.relu(emit(layer, graph, x))
    return x


@emit.register
def _stage(module: ResNetRSStage, graph: NetworkGraph, x: Value) -> Value:
    if module.pool is not None:
        with graph.scope("pool"):
            x = graph.relu(emit(module.pool, graph, x))
    for n, block in enumerate(module.blocks):
        with graph.scope("blocks", n):
            x = emit(block, graph, x)
    return x


@emit.register
def _bottleneck(module: Bottleneck, graph: NetworkGraph, x: Value) -> Value:
    y = x
    for name, layer in (("conv1", module.conv1), ("conv2", module.conv2)):
        with graph.scope(name):
            y = graph.relu(emit(layer, graph, y))
    with graph.scope("conv3"):
        y = emit(module.conv3, graph, y)
    with graph.scope("se"):
        y = emit(module.se, graph, y)
    if module.shortcut is not None:
        with graph.scope("shortcut"):
            x = x if module.stride == 1 else graph.mean_pool(x, module.stride)
            x = emit(module.shortcut, graph, x)
    return graph.relu(graph.add(x, y))


@emit.register
def _squeeze_excite(module: SqueezeExcite, graph: NetworkGraph, x: Value) -> Value:
    hidden = graph.relu(emit_conv(graph, global_mean(graph, x), module.fc1))
    return graph.mul(x, graph.sigmoid(emit_conv(graph, hidden, module.fc2)))


@emit.register
def _conv_norm(module: ConvNorm, graph: NetworkGraph, x: Value) -> Value:
    return emit_conv(graph, x, module.conv, module.norm)
