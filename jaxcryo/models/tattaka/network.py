"""tattaka's network (paper section 2.4, figure 2); `TattakaConfig` has what the text leaves open."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcryo.errors import InputError
from jaxcryo.models import convolution
from jaxcryo.models.layers import BatchNorm, Conv, ConvBlock, DecoderBlock, Init, pixel_shuffle, pool_depth
from jaxcryo.models.tattaka.config import TattakaConfig
from jaxcryo.models.tattaka.encoder import ResNetRS


class SeparableConv(nnx.Module):
    """Dilated depthwise 3x3x3, norm, pointwise, norm, ReLU (FastFCN's `SeparableConv2d`, in 3-D)."""

    def __init__(self, inputs: int, outputs: int, dilation: int, *, dtype: DTypeLike, init: Init):
        self.depthwise = Conv(inputs, inputs, (3, 3, 3), dilation=dilation, depthwise=True, dtype=dtype, init=init)
        self.norm1 = BatchNorm(inputs, dtype=dtype)
        self.pointwise = Conv(inputs, outputs, (1, 1, 1), dtype=dtype, init=init)
        self.norm2 = BatchNorm(outputs, dtype=dtype)

    def __call__(self, x: Float[Array, "b d h w i"]) -> Float[Array, "b d h w o"]:
        return jax.nn.relu(self.norm2(self.pointwise(self.norm1(self.depthwise(x)))))


class JointPyramidUpsampling(nnx.Module):
    """The three lowest maps brought to the first one's size, then seen at several dilations (paper reference 15)."""

    def __init__(
        self, inputs: tuple[int, ...], width: int, dilations: tuple[int, ...], coarsest_first: bool, *,
        dtype: DTypeLike, init: Init,
    ):  # fmt: skip
        self.coarsest_first = coarsest_first
        self.project = nnx.List(ConvBlock(i, width, dtype=dtype, init=init) for i in inputs)
        self.branches = nnx.List(
            SeparableConv(len(inputs) * width, width, d, dtype=dtype, init=init) for d in dilations
        )

    def __call__(self, maps: list[Float[Array, "b d _h _w _c"]]) -> Float[Array, "b d h w o"]:
        projected = []
        for n, (layer, x) in enumerate(zip(self.project, maps, strict=True)):
            y = layer(x)
            for _ in range(n):
                y = convolution.upsample(y, 1)
            projected.append(y)
        joined = jnp.concatenate(projected[::-1] if self.coarsest_first else projected, axis=-1)
        return jnp.concatenate([branch(joined) for branch in self.branches], axis=-1)


class SpatialChannelAttention(nnx.Module):
    """Concurrent spatial and channel squeeze-and-excitation (paper reference 12): x cSE(x) + x sSE(x)."""

    def __init__(self, channels: int, reduction: int, full_width: bool, *, dtype: DTypeLike, init: Init):
        hidden = max(1, channels // reduction)
        self.fc1 = Conv(channels, hidden, (1, 1, 1), bias=True, dtype=dtype, init=init)
        self.fc2 = Conv(hidden, channels, (1, 1, 1), bias=True, dtype=dtype, init=init)
        self.spatial = Conv(channels, channels if full_width else 1, (1, 1, 1), bias=True, dtype=dtype, init=init)

    def __call__(self, x: Float[Array, "b d h w c"]) -> Float[Array, "b d h w c"]:
        channel = jax.nn.sigmoid(self.fc2(jax.nn.relu(self.fc1(volume_mean(x)))))
        return x * (channel + jax.nn.sigmoid(self.spatial(x)))


class AtrousPyramidPooling(nnx.Module):
    """A 1x1x1 convolution, dilated ones and the global mean side by side, reduced to `width` channels.

    The dropout that usually follows is left out.
    """

    def __init__(self, inputs: int, width: int, dilations: tuple[int, ...], *, dtype: DTypeLike, init: Init):
        self.near = Conv(inputs, width, (1, 1, 1), dtype=dtype, init=init)
        self.near_norm = BatchNorm(width, dtype=dtype)
        self.far = nnx.List(Conv(inputs, width, (3, 3, 3), dilation=d, dtype=dtype, init=init) for d in dilations)
        self.far_norms = nnx.List(BatchNorm(width, dtype=dtype) for _ in dilations)
        self.whole = Conv(inputs, width, (1, 1, 1), dtype=dtype, init=init)
        self.whole_norm = BatchNorm(width, dtype=dtype)
        self.project = Conv((len(dilations) + 2) * width, width, (1, 1, 1), dtype=dtype, init=init)
        self.norm = BatchNorm(width, dtype=dtype)

    def __call__(self, x: Float[Array, "b d h w i"]) -> Float[Array, "b d h w o"]:
        parts = [jax.nn.relu(self.near_norm(self.near(x)))]
        parts += [jax.nn.relu(norm(conv(x))) for conv, norm in zip(self.far, self.far_norms, strict=True)]
        whole = jax.nn.relu(self.whole_norm(self.whole(volume_mean(x))))
        parts.append(jnp.broadcast_to(whole, parts[0].shape))
        return jax.nn.relu(self.norm(self.project(jnp.concatenate(parts, axis=-1))))


class UpBlock(nnx.Module):
    """A decoder block with attention after it and, with `scse_before`, on its input."""

    def __init__(
        self, inputs: int, skip: int, outputs: int, depth_factor: int, config: TattakaConfig, *, dtype: DTypeLike,
        init: Init,
    ):  # fmt: skip
        def attention(channels: int) -> SpatialChannelAttention:
            return SpatialChannelAttention(
                channels, config.scse_reduction, config.scse_full_width, dtype=dtype, init=init
            )

        self.before = attention(inputs + skip) if skip and config.scse_before else None
        self.block = DecoderBlock(inputs, skip, outputs, depth_factor, dtype=dtype, init=init)
        self.attention = attention(outputs) if skip or config.scse_last else None

    def __call__(
        self, x: Float[Array, "b d h w i"], skip: Float[Array, "b d2 h2 w2 s"] | None
    ) -> Float[Array, "b d2 h2 w2 o"]:
        if self.before is None:
            y = self.block(x, skip)
        else:
            up = self.block.up
            y = self.block.of_convolved(up.of_joined(self.before(up.joined(x, skip))))
        return y if self.attention is None else self.attention(y)


class Tattaka(nnx.Module):
    """A ResNet-RS on every slice, depth halved twice and then mixed, joint pyramid upsampling, a 3-D decoder."""

    def __init__(self, config: TattakaConfig, *, dtype: DTypeLike = jnp.float32, init: Init):
        if not 1 <= len(config.decoder_widths) <= 3:
            raise InputError(f"{len(config.decoder_widths)} decoder widths; 1, 2 or 3 blocks lead up to the input size")
        self.config = config
        self.encoder = ResNetRS(config.encoder, dtype=dtype, init=init)
        channels = [w * config.encoder.expansion for w in config.encoder.widths]
        self.jpu = JointPyramidUpsampling(
            tuple(channels[1:]), config.jpu_width, config.jpu_dilations, config.jpu_coarsest_first, dtype=dtype,
            init=init,
        )  # fmt: skip
        width = config.jpu_width * len(config.jpu_dilations)
        self.aspp = (
            AtrousPyramidPooling(width, config.jpu_width, config.aspp_dilations, dtype=dtype, init=init)
            if config.aspp_dilations
            else None
        )
        width = config.jpu_width if config.aspp_dilations else width
        inputs = (width, *config.decoder_widths[:-1])
        skips = (channels[0], config.encoder.stem_widths[-1], 0)
        self.decoder = nnx.List(
            UpBlock(i, skip, o, 1 if n == 0 else 2, config, dtype=dtype, init=init)
            for n, (i, skip, o) in enumerate(zip(inputs, skips, config.decoder_widths, strict=False))
        )
        # Small: large first heatmaps would leave Adam with small steps for a thousand more.
        self.head = Conv(
            config.decoder_widths[-1], config.classes * self.head_stride**3, (1, 1, 1), bias=True, init_scale=0.01,
            dtype=dtype, init=init,
        )  # fmt: skip

    @property
    def head_stride(self) -> int:
        """The stride that remains after the decoder's blocks: 1 after all three."""
        return int(2 ** (3 - len(self.config.decoder_widths)))

    def __call__(self, windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        """Heatmaps in float32, linear.

        Raises:
            InputError: the strides do not divide the windows' size.
        """
        batch, depth, height, width = windows.shape
        if depth % 4 or height % 32 or width % 32:
            raise InputError(
                f"tattaka's network cannot take windows of {depth}x{height}x{width}: the depth must be a multiple of "
                "4, height and width of 32"
            )
        x = pool_depth(self.encoder.stem(rearrange(windows, "b d h w -> (b d) h w 1")), batch, 2)
        maps = [x]
        for n, stage in enumerate(self.encoder.stages):
            x = stage(x)
            x = pool_depth(x, batch, 2) if n == 0 else mix_depth(x, batch, self.config.depth_pool_counts_padding)
            maps.append(x)
        maps = [rearrange(m, "(b d) h w c -> b d h w c", b=batch) for m in maps]
        y = self.jpu(maps[2:])
        if self.aspp is not None:
            y = self.aspp(y)
        skips = [maps[1], maps[0], None]
        for block, skip in zip(self.decoder, skips, strict=False):
            y = block(y, skip)
        return pixel_shuffle(self.head(y).astype(jnp.float32), (self.head_stride,) * 3)


def volume_mean(x: Float[Array, "b d h w c"]) -> Float[Array, "b 1 1 1 c"]:
    """The mean over space, summed in float32."""
    return x.mean(axis=(1, 2, 3), keepdims=True, dtype=jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)


def mix_depth(x: Float[Array, "bd h w c"], batch: int, counts_padding: bool) -> Float[Array, "bd h w c"]:
    """Mean over each slice and its two neighbors in depth, within each batch item (kernel 3, stride 1, padding 1)."""
    y = rearrange(x, "(b d) h w c -> b d h w c", b=batch)
    depth = y.shape[1]
    padded = jnp.pad(y, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    if counts_padding:
        total = total * jnp.asarray(1 / 3, x.dtype)
    else:
        counts = [min(d + 1, depth - 1) - max(d - 1, 0) + 1 for d in range(depth)]
        total = total / jnp.asarray(counts, x.dtype)[:, None, None, None]
    return rearrange(total, "b d h w c -> (b d) h w c")
