"""The layers in plain NumPy and float64, in PyTorch's layouts and from tensors by their PyTorch names.

Written from the published descriptions, independently of the network's code.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

Array = np.ndarray
Tensors = dict[str, Array]


def conv(x: Array, weight: Array, bias: Array | None = None, *, stride: int = 1, padding: int = 0, dilation: int = 1,
         groups: int = 1) -> Array:  # fmt: skip
    """A convolution (n, c, *space) of any number of axes; the padding is zeros."""
    space = weight.ndim - 2
    x = np.pad(x, ((0, 0), (0, 0), *[(padding, padding)] * space))
    reach = [dilation * (k - 1) + 1 for k in weight.shape[2:]]
    axes = tuple(range(2, 2 + space))
    views = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    views = views[
        (slice(None), slice(None), *[slice(None, None, stride)] * space, *[slice(None, None, dilation)] * space)
    ]
    n, channels = x.shape[:2]
    sizes = views.shape[2 : 2 + space]
    views = views.reshape(n, groups, channels // groups, *views.shape[2:])
    weight = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    places, taps = "xyz"[:space], "uvw"[:space]
    out = np.einsum(f"ngc{places}{taps},gkc{taps}->ngk{places}", views, weight, optimize=True)
    out = out.reshape(n, -1, *sizes)
    return out if bias is None else out + along_channels(bias, out.ndim)


def along_channels(values: Array, axes: int) -> Array:
    """Per-channel values shaped to meet (n, c, *space)."""
    return values.reshape(1, -1, *[1] * (axes - 2))


def batch_norm(x: Array, t: Tensors, name: str) -> Array:
    """Evaluation mode, eps 1e-5."""
    mean, var, weight, bias = (
        along_channels(t[f"{name}.{k}"], x.ndim) for k in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def layer_norm(x: Array, t: Tensors, name: str) -> Array:
    """Over the channels of (n, c, h, w), eps 1e-6."""
    normal = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    return normal * along_channels(t[f"{name}.weight"], x.ndim) + along_channels(t[f"{name}.bias"], x.ndim)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def convnext_stem(x: Array, t: Tensors) -> Array:
    """4x4 patches, then a norm."""
    return layer_norm(conv(x, t["stem_0.weight"], t["stem_0.bias"], stride=4), t, "stem_1")


def convnext_block(x: Array, t: Tensors, name: str) -> Array:
    """Depthwise 7x7, norm, pointwise, exact GELU, pointwise, layer scale, residual."""
    y = conv(x, t[f"{name}.conv_dw.weight"], t[f"{name}.conv_dw.bias"], padding=3, groups=x.shape[1])
    y = layer_norm(y, t, f"{name}.norm")
    y = conv(y, t[f"{name}.mlp.fc1.weight"], t[f"{name}.mlp.fc1.bias"])
    y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
    y = conv(y, t[f"{name}.mlp.fc2.weight"], t[f"{name}.mlp.fc2.bias"])
    return x + y * along_channels(t[f"{name}.gamma"], 4)


def resnet_rs_stem(x: Array, t: Tensors) -> Array:
    """Three 3x3 convolutions with norms, the first strided."""
    x = relu(batch_norm(conv(x, t["conv1.0.weight"], stride=2, padding=1), t, "conv1.1"))
    x = relu(batch_norm(conv(x, t["conv1.3.weight"], padding=1), t, "conv1.4"))
    return relu(batch_norm(conv(x, t["conv1.6.weight"], padding=1), t, "bn1"))


def bottleneck(x: Array, t: Tensors, name: str, stride: int) -> Array:
    """1x1, 3x3, 1x1, squeeze-excite, and the shortcut through a mean pooling and a projection."""
    y = relu(batch_norm(conv(x, t[f"{name}.conv1.weight"]), t, f"{name}.bn1"))
    y = relu(batch_norm(conv(y, t[f"{name}.conv2.weight"], stride=stride, padding=1), t, f"{name}.bn2"))
    y = batch_norm(conv(y, t[f"{name}.conv3.weight"]), t, f"{name}.bn3")
    squeezed = y.mean((2, 3), keepdims=True)
    squeezed = relu(conv(squeezed, t[f"{name}.se.fc1.weight"], t[f"{name}.se.fc1.bias"]))
    y = y * sigmoid(conv(squeezed, t[f"{name}.se.fc2.weight"], t[f"{name}.se.fc2.bias"]))
    if f"{name}.downsample.1.weight" in t:
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // stride, stride, w // stride, stride).mean((3, 5))
        x = batch_norm(conv(x, t[f"{name}.downsample.1.weight"]), t, f"{name}.downsample.2")
    return relu(x + y)


def conv_block(x: Array, t: Tensors, name: str) -> Array:
    """yu4u's `Conv3dReLU`: 3x3x3 convolution, norm, ReLU."""
    return relu(batch_norm(conv(x, t[f"{name}.block.0.weight"], padding=1), t, f"{name}.block.1"))


def decoder_block(x: Array, skip: Array, t: Tensors, name: str, depth_factor: int) -> Array:
    """yu4u's decoder block: nearest upsampling, the skip after it, two convolutions."""
    x = x.repeat(depth_factor, 2).repeat(2, 3).repeat(2, 4)
    return conv_block(conv_block(np.concatenate([x, skip], 1), t, f"{name}.conv1"), t, f"{name}.conv2")


def mean_of_three(x: Array, counts_padding: bool) -> Array:
    """Average pooling in depth of (n, c, d, h, w): kernel 3, stride 1, padding 1."""
    total = np.zeros_like(x)
    count = np.zeros(x.shape[2])
    for i in range(x.shape[2]):
        low, high = max(0, i - 1), min(x.shape[2], i + 2)
        total[:, :, i] = x[:, :, low:high].sum(2)
        count[i] = 3 if counts_padding else high - low
    return total / count[:, None, None]
