"""ConvNeXt, as timm's `convnext_nano` computes it (paper reference 14)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcryo.models.layers import Conv, Init, LayerNorm, Stage
from jaxcryo.models.yu4u.config import ConvNeXtConfig


class ConvNeXtBlock(nnx.Module):
    """Depthwise convolution, norm, two pointwise layers with GELU between, layer scale, residual."""

    def __init__(self, channels: int, config: ConvNeXtConfig, *, dtype: DTypeLike, init: Init):
        kernel = config.kernel
        self.conv_dw = Conv(channels, channels, (kernel, kernel), depthwise=True, bias=True, dtype=dtype, init=init)
        self.norm = LayerNorm(channels, dtype=dtype)
        self.fc1 = Conv(channels, 4 * channels, (1, 1), bias=True, dtype=dtype, init=init)
        self.fc2 = Conv(4 * channels, channels, (1, 1), bias=True, dtype=dtype, init=init)
        self.gamma = nnx.Param(np.full(channels, config.layer_scale, np.float32))

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = self.norm(self.conv_dw(x))
        y = self.fc2(jax.nn.gelu(self.fc1(y), approximate=False))
        return x + y * self.gamma[...].astype(y.dtype)


class ConvNeXtStage(Stage):
    """Downsampling (the stem's patches and norm first, norm and 2x2 patches later), then blocks."""

    def __init__(self, inputs: int, channels: int, depth: int, config: ConvNeXtConfig, *, stem: bool, dtype: DTypeLike,
                 init: Init):  # fmt: skip
        self.stem = stem
        patch = 4 if stem else 2
        self.norm = LayerNorm(channels if stem else inputs, dtype=dtype)
        self.conv = Conv(inputs, channels, (patch, patch), stride=patch, padding=0, bias=True, dtype=dtype, init=init)
        self.blocks = nnx.List(ConvNeXtBlock(channels, config, dtype=dtype, init=init) for _ in range(depth))

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h2 w2 o"]:
        x = self.norm(self.conv(x)) if self.stem else self.conv(self.norm(x))
        return self.run_blocks(x)


class ConvNeXt(nnx.Module):
    """The stages; the caller pools between them. Strides 4, 8, 16, 32."""

    def __init__(self, config: ConvNeXtConfig, *, dtype: DTypeLike = jnp.float32, init: Init):
        inputs = (config.in_channels, *config.widths[:-1])
        self.stages = nnx.List(
            ConvNeXtStage(i, o, depth, config, stem=n == 0, dtype=dtype, init=init)
            for n, (i, o, depth) in enumerate(zip(inputs, config.widths, config.depths, strict=True))
        )
