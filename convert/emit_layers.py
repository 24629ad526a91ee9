"""How shared layers become ONNX nodes: channel-first, BatchNorm folded, no tap that sees padding only.

A volume of depth 1 is a 2-D map here, of shape (b, c, h, w); a deeper one is (b, c, d, h, w).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Literal

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from convert.graph import Graph, Precision, Value
from jaxcryo.models.layers import BatchNorm, Conv, ConvBlock, DecoderBlock, UpConv3d

Upsampling = Literal["folded", "resize"]
Array = NDArray[np.float64]

_BATCH_NORM_EPSILON = 1e-5
"""That of `BatchNorm`."""


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
    """A convolution's kernel and bias with the normalisation after it."""
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
    """A convolution and the normalisation after it."""
    kernel, bias = folded(conv, norm)
    if conv.spatial == 3:
        return volume_conv(graph, x, kernel, bias, dilation=conv.dilation, depthwise=conv.depthwise)
    padding = [(conv.padding, conv.padding)] * 2
    groups = kernel.shape[-1] if conv.depthwise else 1
    return graph.conv(x, outputs_first(kernel), bias, stride=conv.stride, padding=padding, groups=groups)


def volume_conv(
    graph: NetworkGraph, x: Value, kernel: Array, bias: Array | None, *, dilation: int = 1, depthwise: bool = False
) -> Value:
    """A 3-D convolution that keeps the size; along an axis where only the middle tap meets data the others go."""
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
    """(*space, inputs, outputs) as ONNX has it."""
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
    c = k // factor**3
    if factor > 1:
        x = graph.reshape(x, (b, c, factor, factor, factor, d, h, w))
        x = graph.transpose(x, (0, 1, 5, 2, 6, 3, 7, 4))
    return graph.reshape(x, (b, c, d * factor, h * factor, w * factor))


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
    factor, bias = scale_and_shift(norm)
    kernel = weights(up.kernel) * factor
    if graph.upsampling == "resize":
        return volume_conv(graph, _joined(graph, x, skip, up.depth_factor), kernel, bias)
    fine = _folded_upsampling(graph, x, kernel[..., : up.inputs, :], None if skip else bias, up.depth_factor)
    if skip is None:
        return fine
    return graph.add(volume_conv(graph, skip, kernel[..., up.inputs :, :], bias), fine)


def _joined(graph: NetworkGraph, x: Value, skip: Value | None, depth_factor: int) -> Value:
    b, c, *space = x.shape
    if x.rank == 4 and depth_factor > 1:
        x = graph.reshape(x, (b, c, 1, *space))
    up = graph.upsample(x, (2, 2) if x.rank == 4 else (depth_factor, 2, 2))
    return up if skip is None else graph.concat([up, skip], axis=1)


def _folded_upsampling(graph: NetworkGraph, x: Value, kernel: Array, bias: Array | None, depth_factor: int) -> Value:
    """`kernel` on x after nearest upsampling, which is never made: one small convolution for each output phase.

    Along an upsampled axis phase 0 sees a voxel and the one before it through (w0, w1 + w2), phase 1 a voxel and the
    one after it through (w0 + w1, w2).
    """
    b, _, *space = x.shape
    outputs = kernel.shape[-1]
    before_after = ((1, 0), (0, 1))
    parts = []
    if x.rank == 4:
        # A single slice: the tap beside it meets padding only, and both depth phases are channels of one convolution.
        planes = [kernel[1]] if depth_factor == 1 else [kernel[1] + kernel[2], kernel[0] + kernel[1]]
        plane = np.concatenate([p[..., None] for p in planes], axis=-1).reshape(3, 3, kernel.shape[3], -1)
        shift = None if bias is None else np.repeat(bias, depth_factor)
        for phases in itertools.product(range(2), repeat=2):
            taps = _phase(_phase(plane, 0, phases[0]), 1, phases[1])
            parts.append(graph.conv(x, outputs_first(taps), shift, padding=[before_after[p] for p in phases]))
        return _interleave(graph, parts, (b, outputs, depth_factor, *space), (1, 2, 2))
    for pz, py, px in itertools.product(range(depth_factor), range(2), range(2)):
        taps = _phase(_phase(kernel, 1, py), 2, px)
        taps = taps if depth_factor == 1 else _phase(taps, 0, pz)
        depth_padding = (1, 1) if depth_factor == 1 else before_after[pz]
        padding = [depth_padding, before_after[py], before_after[px]]
        parts.append(graph.conv(x, outputs_first(taps), bias, padding=padding))
    return _interleave(graph, parts, (b, outputs, *space), (depth_factor, 2, 2))


def _phase(kernel: Array, axis: int, phase: int) -> Array:
    w0, w1, w2 = np.split(kernel, 3, axis=axis)
    return np.concatenate([w0, w1 + w2] if phase == 0 else [w0 + w1, w2], axis=axis)


def _interleave(graph: NetworkGraph, parts: list[Value], shape: tuple[int, ...], phases: tuple[int, int, int]) -> Value:
    """Parts in the order of their phases (z, y, x) woven into one volume; each part holds `shape` (b, c, d, h, w)."""
    b, c, d, h, w = shape
    fz, fy, fx = phases
    joined = graph.concat(parts, axis=1)
    if fz == 1:
        x = graph.reshape(joined, (b, fy, fx, c * d, h, w))
        x = graph.transpose(x, (0, 3, 4, 1, 5, 2))
    else:
        x = graph.reshape(joined, (b, fz, fy, fx, c, d, h, w))
        x = graph.transpose(x, (0, 4, 5, 1, 6, 2, 7, 3))
    space = (h * fy, w * fx) if d * fz == 1 else (d * fz, h * fy, w * fx)
    return graph.reshape(x, (b, c, *space))
