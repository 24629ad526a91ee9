"""How shared layers become ONNX nodes: channel-first, BatchNorm folded, without taps that see only padding.

A volume of depth 1 is a 2-D map here, of shape (b, c, h, w); a deeper one is (b, c, d, h, w).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Literal

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from jaxcryo.config import Precision
from jaxcryo.models import phases
from jaxcryo.models.layers import BatchNorm, Conv, ConvBlock, DecoderBlock, UpConv3d
from jaxcryo.models.onnx_graph import Graph, Value

Upsampling = Literal["folded", "resize"]
Array = NDArray[np.float64]

_BATCH_NORM_EPSILON = 1e-5
"""The epsilon of `BatchNorm`."""


class NetworkGraph(Graph):
    """A graph under construction, with the choices that its emitters need."""

    def __init__(self, *, batch: int, precision: Precision, upsampling: Upsampling):
        super().__init__(precision)
        self.batch, self.upsampling = batch, upsampling


@functools.singledispatch
def emit(module: nnx.Module, graph: NetworkGraph, *inputs: Value | None) -> Value:
    """Adds what a module computes to the graph and returns its result."""
    raise TypeError(f"no ONNX nodes are known for {type(module).__name__}")


def weights(variable: nnx.Variable[Any]) -> Array:
    """A parameter as float64, in which foldings are computed."""
    return np.asarray(variable[...], np.float64)


def folded(conv: Conv, norm: BatchNorm | None) -> tuple[Array, Array | None]:
    """A convolution's kernel and bias with the normalization after it."""
    kernel = weights(conv.kernel)
    bias = None if conv.bias is None else weights(conv.bias)
    if norm is None:
        return kernel, bias
    factor, shift = scale_and_shift(norm)
    return kernel * factor, shift if bias is None else shift + bias * factor


def scale_and_shift(norm: BatchNorm) -> tuple[Array, Array]:
    """What a BatchNorm multiplies by and adds, with its running statistics."""
    factor = weights(norm.scale) / np.sqrt(weights(norm.var) + _BATCH_NORM_EPSILON)
    return factor, weights(norm.bias) - weights(norm.mean) * factor


def emit_conv(graph: NetworkGraph, x: Value, conv: Conv, norm: BatchNorm | None = None) -> Value:
    """A convolution and the normalization after it."""
    kernel, bias = folded(conv, norm)
    if conv.spatial == 3:
        return volume_conv(graph, x, kernel, bias, dilation=conv.dilation, depthwise=conv.depthwise)
    padding = [(conv.padding, conv.padding)] * 2
    groups = kernel.shape[-1] if conv.depthwise else 1
    return graph.conv(x, outputs_first(kernel), bias, stride=conv.stride, padding=padding, groups=groups)


def volume_conv(
    graph: NetworkGraph, x: Value, kernel: Array, bias: Array | None, *, dilation: int = 1, depthwise: bool = False
) -> Value:
    """A 3-D convolution that keeps the size; taps that see only padding along an axis are dropped."""
    space = (1, *x.shape[2:]) if x.rank == 4 else x.shape[2:]
    for axis, size in enumerate(space):
        middle = kernel.shape[axis] // 2
        if middle and dilation >= size:
            kernel = np.take(kernel, [middle], axis=axis)
    if x.rank == 4:
        kernel = kernel[0]
    padding = [(dilation * (k // 2),) * 2 for k in kernel.shape[:-2]]
    groups = kernel.shape[-1] if depthwise else 1
    return graph.conv(x, outputs_first(kernel), bias, padding=padding, dilation=dilation, groups=groups)


def outputs_first(kernel: Array) -> Array:
    """(*space, inputs, outputs) in ONNX's order."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def volume(graph: NetworkGraph, x: Value) -> Value:
    """Slices in the batch (b·d, c, h, w) as volumes."""
    depth = x.shape[0] // graph.batch
    if depth == 1:
        return x
    slices = graph.reshape(x, (graph.batch, depth, *x.shape[1:]))
    return graph.transpose(slices, (0, 2, 1, 3, 4))


def pool_depth(graph: NetworkGraph, x: Value, factor: int) -> Value:
    """Slices in the batch, averaged in groups of `factor`."""
    if factor == 1:
        return x
    return graph.mean(graph.reshape(x, (x.shape[0] // factor, factor, *x.shape[1:])), axis=1)


def global_mean(graph: NetworkGraph, x: Value) -> Value:
    """The mean over space, summed in float32: half a million voxels would overflow float16."""
    return graph.cast(graph.global_mean(graph.cast(x, "float32")), x.dtype)


def pixel_shuffle(graph: NetworkGraph, x: Value, factor: int) -> Value:
    """Channels ((class dz) dy) dx spread over a volume that is `factor` times as fine."""
    b, k = x.shape[:2]
    d, h, w = (1, *x.shape[2:]) if x.rank == 4 else x.shape[2:]
    steps = phases.pixel_shuffle(b, k, (d, h, w), (factor,) * 3, channels_last=False)
    if factor > 1:
        x = graph.transpose(graph.reshape(x, steps.split), steps.order)
    return graph.reshape(x, steps.merged)


@emit.register
def _conv_block(module: ConvBlock, graph: NetworkGraph, x: Value) -> Value:
    return graph.relu(emit_conv(graph, x, module.conv, module.norm))


@emit.register
def _decoder_block(module: DecoderBlock, graph: NetworkGraph, x: Value, skip: Value | None) -> Value:
    with graph.scope("up"):
        y = graph.relu(_up_conv(graph, x, skip, module.up, module.norm))
    with graph.scope("refine"):
        return emit(module.refine, graph, y)


def _up_conv(graph: NetworkGraph, x: Value, skip: Value | None, up: UpConv3d, norm: BatchNorm) -> Value:
    if graph.upsampling == "resize" and (x.rank == 5 or up.depth_factor == 1):
        return joined_conv(graph, joined_upsampled(graph, x, skip, up), up, norm)
    factor, bias = scale_and_shift(norm)
    kernel = weights(up.kernel) * factor
    above, beside = np.split(kernel, [up.inputs], axis=3)
    upsampled_conv = _upsampled_slice_conv if x.rank == 4 else _upsampled_volume_conv
    y = upsampled_conv(graph, x, above, bias if skip is None else None, up.depth_factor)
    return y if skip is None else graph.add(volume_conv(graph, skip, beside, bias), y)


def joined_upsampled(graph: NetworkGraph, x: Value, skip: Value | None, up: UpConv3d) -> Value:
    """The upsampled map with the skip after it."""
    if x.rank == 4 and up.depth_factor > 1:
        x = graph.reshape(x, (*x.shape[:2], 1, *x.shape[2:]))
    fine = graph.upsample(x, (2, 2) if x.rank == 4 else (up.depth_factor, 2, 2))
    return fine if skip is None else graph.concat([fine, skip], axis=1)


def joined_conv(graph: NetworkGraph, joined: Value, up: UpConv3d, norm: BatchNorm) -> Value:
    """The convolution of such maps, and the normalization after it."""
    factor, bias = scale_and_shift(norm)
    return volume_conv(graph, joined, weights(up.kernel) * factor, bias)


def _upsampled_volume_conv(
    graph: NetworkGraph, x: Value, kernel: Array, bias: Array | None, depth_factor: int
) -> Value:
    """`kernel` on x after nearest upsampling, which is never made: one small convolution for each output phase."""
    parts = []
    for pz, py, px in itertools.product(range(depth_factor), range(2), range(2)):
        taps = _phase(_phase(kernel, 1, py), 2, px)
        depth_padding = (1, 1)
        if depth_factor > 1:
            taps, depth_padding = _phase(taps, 0, pz), phases.PHASE_PADDING[pz]
        padding = [depth_padding, phases.PHASE_PADDING[py], phases.PHASE_PADDING[px]]
        parts.append(graph.conv(x, outputs_first(taps), bias, padding=padding))
    b, _, d, h, w = x.shape
    outputs = kernel.shape[-1]
    joined = graph.concat(parts, axis=1)
    if depth_factor == 1:
        return _woven_planes(graph, joined, (b, outputs, d, h, w))
    parted = graph.reshape(joined, (b, 2, 2, 2, outputs, d, h, w))
    woven = graph.transpose(parted, (0, 4, 5, 1, 6, 2, 7, 3))
    return graph.reshape(woven, (b, outputs, d * 2, h * 2, w * 2))


def _upsampled_slice_conv(graph: NetworkGraph, x: Value, kernel: Array, bias: Array | None, depth_factor: int) -> Value:
    """The same for a single slice: its depth phases, which see only that slice, are channels of one convolution."""
    b, _, h, w = x.shape
    plane = np.stack(phases.phases_of_slice(kernel, depth_factor), axis=-1).reshape(*kernel.shape[1:4], -1)
    bias = None if bias is None else np.repeat(bias, depth_factor)
    shape = (b, kernel.shape[-1], depth_factor, h, w)
    if graph.upsampling == "resize":
        y = graph.conv(graph.upsample(x, (2, 2)), outputs_first(plane), bias, padding=[(1, 1)] * 2)
        return graph.reshape(y, (*shape[:3], h * 2, w * 2))
    parts = [
        graph.conv(
            x, outputs_first(_phase(_phase(plane, 0, py), 1, px)), bias,
            padding=[phases.PHASE_PADDING[py], phases.PHASE_PADDING[px]],
        )
        for py, px in itertools.product(range(2), range(2))
    ]  # fmt: skip
    return _woven_planes(graph, graph.concat(parts, axis=1), shape)


def _woven_planes(graph: NetworkGraph, parts: Value, shape: tuple[int, int, int, int, int]) -> Value:
    """Channels (y phase, x phase, c, d) spread over planes; `shape` is (b, c, d, h, w) before."""
    b, c, d, h, w = shape
    parted = graph.reshape(parts, (b, 2, 2, c * d, h, w))
    woven = graph.transpose(parted, (0, 3, 4, 1, 5, 2))
    return graph.reshape(woven, (b, c, h * 2, w * 2) if d == 1 else (b, c, d, h * 2, w * 2))


def _phase(kernel: Array, axis: int, phase: int) -> Array:
    """The kernel that a phase along an upsampled axis sees."""
    return np.concatenate(phases.phase_taps(*np.split(kernel, 3, axis=axis), phase=phase), axis=axis)
