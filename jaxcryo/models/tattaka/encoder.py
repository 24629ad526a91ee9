"""ResNet-RS, as timm's `resnetrs50` computes it (paper reference 1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcryo.models.layers import BatchNorm, Conv, Init, Stage
from jaxcryo.models.tattaka.config import ResNetRSConfig


class ConvNorm(nnx.Module):
    """2-D convolution without bias, BatchNorm; the activation is the caller's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dtype: DTypeLike, init: Init):
        self.conv = Conv(inputs, outputs, (kernel, kernel), stride=stride, dtype=dtype, init=init)
        self.norm = BatchNorm(outputs, dtype=dtype)

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h2 w2 o"]:
        return self.norm(self.conv(x))


class SqueezeExcite(nnx.Module):
    """Channels scaled by a function of their means."""

    def __init__(self, channels: int, hidden: int, *, dtype: DTypeLike, init: Init):
        self.fc1 = Conv(channels, hidden, (1, 1), bias=True, dtype=dtype, init=init)
        self.fc2 = Conv(hidden, channels, (1, 1), bias=True, dtype=dtype, init=init)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        mean = x.mean(axis=(1, 2), keepdims=True, dtype=jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)
        return x * jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(mean))))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (strided), 1x1, squeeze-excite, residual; the shortcut is mean-pooled where strided."""

    def __init__(self, inputs: int, width: int, stride: int, config: ResNetRSConfig, *, dtype: DTypeLike,
                 init: Init):  # fmt: skip
        outputs = width * config.expansion
        self.stride = stride
        self.conv1 = ConvNorm(inputs, width, 1, dtype=dtype, init=init)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, dtype=dtype, init=init)
        self.conv3 = ConvNorm(width, outputs, 1, dtype=dtype, init=init)
        self.se = SqueezeExcite(outputs, int(outputs * config.se_ratio), dtype=dtype, init=init)
        self.shortcut = (
            ConvNorm(inputs, outputs, 1, dtype=dtype, init=init) if stride > 1 or inputs != outputs else None
        )

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h2 w2 o"]:
        y = jax.nn.relu(self.conv1(x))
        y = jax.nn.relu(self.conv2(y))
        y = self.se(self.conv3(y))
        if self.shortcut is not None:
            x = self.shortcut(mean_pool2d(x, self.stride))
        return jax.nn.relu(x + y)


class ResNetRSStem(nnx.Module):
    """Three 3x3 convolutions, the first strided. Stride 2."""

    def __init__(self, config: ResNetRSConfig, *, dtype: DTypeLike, init: Init):
        w1, w2, w3 = config.stem_widths
        self.conv1 = ConvNorm(config.in_channels, w1, 3, stride=2, dtype=dtype, init=init)
        self.conv2 = ConvNorm(w1, w2, 3, dtype=dtype, init=init)
        self.conv3 = ConvNorm(w2, w3, 3, dtype=dtype, init=init)

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h2 w2 o"]:
        for layer in (self.conv1, self.conv2, self.conv3):
            x = jax.nn.relu(layer(x))
        return x


class ResNetRSStage(Stage):
    """Bottlenecks; the first stage starts with the strided convolution that replaces ResNet's max pooling."""

    def __init__(self, inputs: int, width: int, depth: int, config: ResNetRSConfig, *, first: bool, dtype: DTypeLike,
                 init: Init):  # fmt: skip
        self.pool = ConvNorm(inputs, inputs, 3, stride=2, dtype=dtype, init=init) if first else None
        outputs = width * config.expansion
        self.blocks = nnx.List(
            Bottleneck(outputs if n else inputs, width, 1 if first or n else 2, config, dtype=dtype, init=init)
            for n in range(depth)
        )

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h2 w2 o"]:
        if self.pool is not None:
            x = jax.nn.relu(self.pool(x))
        return self.run_blocks(x)


class ResNetRS(nnx.Module):
    """The stem and the stages; the caller pools between them. Strides 2, 4, 8, 16, 32."""

    def __init__(self, config: ResNetRSConfig, *, dtype: DTypeLike = jnp.float32, init: Init):
        self.stem = ResNetRSStem(config, dtype=dtype, init=init)
        inputs = (config.stem_widths[-1], *(w * config.expansion for w in config.widths[:-1]))
        self.stages = nnx.List(
            ResNetRSStage(i, width, depth, config, first=n == 0, dtype=dtype, init=init)
            for n, (i, width, depth) in enumerate(zip(inputs, config.widths, config.depths, strict=True))
        )


def mean_pool2d(x: Float[Array, "n h w c"], factor: int) -> Float[Array, "n h2 w2 c"]:
    """Mean over factor x factor squares."""
    if factor == 1:
        return x
    n, h, w, c = x.shape
    return x.reshape(n, h // factor, factor, w // factor, factor, c).mean(axis=(2, 4))
