"""How the 2-D encoders become ONNX nodes; slices are in the batch, channels first."""

from __future__ import annotations

import numpy as np

from jaxcryo.convert.emit_layers import Array, NetworkGraph, emit, emit_conv, global_mean, outputs_first, weights
from jaxcryo.convert.graph import Value
from jaxcryo.models.layers import Conv, LayerNorm
from jaxcryo.models.tattaka.encoder import Bottleneck, ConvNorm, ResNetRSStage, ResNetRSStem, SqueezeExcite
from jaxcryo.models.yu4u.encoder import ConvNeXtBlock, ConvNeXtStage

_LAYER_NORM_EPSILON = 1e-6
"""That of `LayerNorm`."""


@emit.register
def _conv_next_stage(module: ConvNeXtStage, graph: NetworkGraph, x: Value) -> Value:
    """The stem's convolution is the caller's, who knows where its channels come from."""
    if module.stem:
        columns = (1, -1, 1, 1)
        x = graph.mul(_standardised(graph, x), weights(module.norm.scale).reshape(columns))
        x = graph.add(x, weights(module.norm.bias).reshape(columns))
    else:
        kernel, bias = _after(module.norm, module.conv)
        x = _unpadded_conv(graph, _standardised(graph, x), kernel, bias, stride=module.conv.stride)
    for n, block in enumerate(module.blocks):
        with graph.scope("blocks", n):
            x = emit(block, graph, x)
    return x


@emit.register
def _conv_next_block(module: ConvNeXtBlock, graph: NetworkGraph, x: Value) -> Value:
    y = _standardised(graph, emit_conv(graph, x, module.conv_dw))
    y = graph.gelu(_unpadded_conv(graph, y, *_after(module.norm, module.fc1)))
    gamma = weights(module.gamma)
    y = _unpadded_conv(graph, y, weights(module.fc2.kernel) * gamma, _bias(module.fc2) * gamma)
    return graph.add(x, y)


def _standardised(graph: NetworkGraph, x: Value) -> Value:
    """LayerNorm without its scale and bias: over the channels where they are, in float32 whatever the precision.

    ONNX's LayerNormalization would need them last, between two Transposes.
    """
    wide = graph.cast(x, "float32")
    centred = graph.sub(wide, graph.mean(wide, axis=1, keep=True))
    variance = graph.mean(graph.mul(centred, centred), axis=1, keep=True)
    deviation = graph.sqrt(graph.add(variance, np.asarray([_LAYER_NORM_EPSILON])))
    return graph.cast(graph.div(centred, deviation), x.dtype)


def _after(norm: LayerNorm, conv: Conv) -> tuple[Array, Array]:
    """Kernel and bias of an unpadded convolution, the scale and bias of the norm before it folded in."""
    kernel = weights(conv.kernel)
    return kernel * weights(norm.scale)[:, None], _bias(conv) + (weights(norm.bias) @ kernel).sum(axis=(0, 1))


def _bias(conv: Conv) -> Array:
    return np.zeros(weights(conv.kernel).shape[-1]) if conv.bias is None else weights(conv.bias)


def _unpadded_conv(graph: NetworkGraph, x: Value, kernel: Array, bias: Array, *, stride: int = 1) -> Value:
    return graph.conv(x, outputs_first(kernel), bias, stride=stride, padding=[(0, 0)] * 2)


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
