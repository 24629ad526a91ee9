"""Layers with parameters, shared by both networks. Parameters are float32, computation is in `dtype`."""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from numpy.typing import NDArray

from jaxcryo.models import convolution, phases


class Init:
    """Draws initial kernels: truncated normal, variance 2 / fan-in (He). Without a seed only their shapes are real."""

    def __init__(self, seed: int | None):
        self.rng = None if seed is None else np.random.default_rng(seed)

    def kernel(self, shape: tuple[int, ...], scale: float = 1.0) -> NDArray[np.float32]:
        """A kernel whose last axis is its outputs."""
        if self.rng is None:
            return np.broadcast_to(np.float32(0), shape)
        values = self.rng.standard_normal(shape, np.float32)
        while (far := np.abs(values) > 2).any():
            values[far] = self.rng.standard_normal(int(far.sum()), np.float32)
        # 0.8796 is the standard deviation of a normal cut at two of them.
        return values * np.float32(scale * np.sqrt(2 / math.prod(shape[:-1])) / 0.8796)


class Conv(nnx.Module):
    """A convolution, 2-D or 3-D by the length of `kernel`; `depthwise` gives every channel a kernel of its own.

    Kernels are stored as (*kernel, inputs, outputs), or (*kernel, 1, channels) where depthwise. Zero padding keeps the
    size at stride 1; `padding` overrides it (2-D only). `init_scale` multiplies the initial kernel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        depthwise: bool = False,
        bias: bool = False,
        init_scale: float = 1.0,
        dtype: DTypeLike = jnp.float32,
        init: Init,
    ):
        if depthwise and inputs != outputs:
            raise ValueError(f"a depthwise convolution keeps its channels; got {inputs} and {outputs}")
        self.stride, self.dilation, self.depthwise, self.dtype = stride, dilation, depthwise, dtype
        self.padding = kernel[-1] // 2 if padding is None else padding
        shape = (*kernel, 1 if depthwise else inputs, outputs)
        self.kernel = nnx.Param(init.kernel(shape, init_scale))
        self.bias = nnx.Param(np.zeros(outputs, np.float32)) if bias else None

    @property
    def spatial(self) -> int:
        """2 or 3."""
        return self.kernel.ndim - 2

    def __call__(self, x: Float[Array, "b *space i"]) -> Float[Array, "b *space2 o"]:
        kernel = self.kernel[...].astype(self.dtype)
        x = x.astype(self.dtype)
        formulation = convolution.best_formulation()
        if self.spatial == 3 and kernel.shape[:3] == (1, 1, 1):
            y = x @ kernel[0, 0, 0]
        elif self.spatial == 3 and self.depthwise:
            y = convolution.depthwise3d(x, kernel, self.dilation, formulation)
        elif self.spatial == 3:
            y = convolution.conv3d(x, kernel, formulation if self.dilation == 1 else "native", dilation=self.dilation)
        elif self.depthwise:
            y = convolution.depthwise2d(x, kernel, formulation)
        elif kernel.shape[:2] == (1, 1) and self.stride == 1:
            y = x @ kernel[0, 0]
        else:
            y = convolution.conv2d(x, kernel, stride=self.stride, padding=self.padding)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class UpConv3d(nnx.Module):
    """Upsample x by (depth_factor, 2, 2), concatenate the skip after it, convolve 3x3x3.

    One kernel over the concatenated channels, as published. The shares of the upsampled and the skip channels are
    computed separately, so that the first need not be computed at the high resolution.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, depth_factor: int, *, dtype: DTypeLike, init: Init):
        self.inputs, self.skip, self.depth_factor, self.dtype = inputs, skip, depth_factor, dtype
        self.kernel = nnx.Param(init.kernel((3, 3, 3, inputs + skip, outputs)))

    def __call__(
        self, x: Float[Array, "b d h w i"], skip: Float[Array, "b d2 h2 w2 s"] | None
    ) -> Float[Array, "b d2 h2 w2 o"]:
        kernel = self.kernel[...].astype(self.dtype)
        formulation = convolution.best_formulation()
        if formulation == "native":
            return self.of_joined(self.joined(x, skip))
        y = convolution.upsampled_conv3d(
            x.astype(self.dtype), kernel[..., : self.inputs, :], self.depth_factor, formulation
        )
        if skip is None:
            return y
        return y + convolution.conv3d(skip.astype(self.dtype), kernel[..., self.inputs :, :], formulation)

    def joined(
        self, x: Float[Array, "b d h w i"], skip: Float[Array, "b d2 h2 w2 s"] | None
    ) -> Float[Array, "b d2 h2 w2 is"]:
        """The upsampled map with the skip after it."""
        up = convolution.upsample(x, self.depth_factor)
        return up if skip is None else jnp.concatenate([up, skip.astype(up.dtype)], axis=-1)

    def of_joined(self, joined: Float[Array, "b d h w is"]) -> Float[Array, "b d h w o"]:
        """The convolution of such maps."""
        kernel = self.kernel[...].astype(self.dtype)
        return convolution.conv3d(joined.astype(self.dtype), kernel, convolution.best_formulation())


class BatchNorm(nnx.Module):
    """PyTorch's BatchNorm: eps 1e-5, running statistics with momentum 0.1. Statistics are computed in float32.

    In training the batch's own statistics are used; `batch_axis` names the mapped axis over which they are averaged.
    """

    def __init__(self, channels: int, *, dtype: DTypeLike):
        self.scale = nnx.Param(np.ones(channels, np.float32))
        self.bias = nnx.Param(np.zeros(channels, np.float32))
        self.mean = nnx.BatchStat(np.zeros(channels, np.float32))
        self.var = nnx.BatchStat(np.ones(channels, np.float32))
        self.dtype = dtype
        self.use_running_average = False  # set by Module.train() and eval()
        self.batch_axis: str | None = None

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._batch_statistics(x)
        factor = self.scale[...] * jax.lax.rsqrt(var + 1e-5)
        return x * factor.astype(self.dtype) + (self.bias[...] - mean * factor).astype(self.dtype)

    def _batch_statistics(self, x: Float[Array, "*b c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        axes = tuple(range(x.ndim - 1))
        count = math.prod(x.shape[:-1])
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, square = x.mean(axes), (x * x).mean(axes)
        if self.batch_axis is not None:
            mean, square = jax.lax.pmean((mean, square), self.batch_axis)
            count *= jax.lax.axis_size(self.batch_axis)
        var = jnp.maximum(square - mean * mean, 0)
        unbiased = var * (count / max(count - 1, 1))
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            # Not running[...] = ...: with a NumPy array that would change the caller's statistics.
            running.set_value(0.9 * running.get_value() + 0.1 * jax.lax.stop_gradient(new))
        return mean, var


class LayerNorm(nnx.Module):
    """Over the channels, eps 1e-6, statistics in float32."""

    def __init__(self, channels: int, *, dtype: DTypeLike):
        self.scale = nnx.Param(np.ones(channels, np.float32))
        self.bias = nnx.Param(np.zeros(channels, np.float32))
        self.dtype = dtype

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centered = wide - wide.mean(-1, keepdims=True)
        normal = centered * jax.lax.rsqrt((centered * centered).mean(-1, keepdims=True) + 1e-6)
        return (normal * self.scale[...] + self.bias[...]).astype(self.dtype)


class ConvBlock(nnx.Module):
    """3x3x3 convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, dtype: DTypeLike, init: Init):
        self.conv = Conv(inputs, outputs, (3, 3, 3), dtype=dtype, init=init)
        self.norm = BatchNorm(outputs, dtype=dtype)

    def __call__(self, x: Float[Array, "b d h w i"]) -> Float[Array, "b d h w o"]:
        return jax.nn.relu(self.norm(self.conv(x)))


class DecoderBlock(nnx.Module):
    """Upsample, concatenate the skip, two 3x3x3 convolutions with BatchNorm and ReLU."""

    def __init__(self, inputs: int, skip: int, outputs: int, depth_factor: int, *, dtype: DTypeLike, init: Init):
        self.up = UpConv3d(inputs, skip, outputs, depth_factor, dtype=dtype, init=init)
        self.norm = BatchNorm(outputs, dtype=dtype)
        self.refine = ConvBlock(outputs, outputs, dtype=dtype, init=init)

    def __call__(
        self, x: Float[Array, "b d h w i"], skip: Float[Array, "b d2 h2 w2 s"] | None
    ) -> Float[Array, "b d2 h2 w2 o"]:
        return self.of_convolved(self.up(x, skip))

    def of_convolved(self, y: Float[Array, "b d h w o"]) -> Float[Array, "b d h w o"]:
        """All after the first convolution."""
        return self.refine(jax.nn.relu(self.norm(y)))


class Stage(nnx.Module):
    """Blocks of an encoder at one size. `rematerialize`: keep no activations for the backward pass."""

    blocks: Iterable[nnx.Module]
    rematerialize = False  # set by `build`

    def run_blocks(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """One block after another."""
        for block in self.blocks:
            x = nnx.remat(lambda b, y: b(y))(block, x) if self.rematerialize else block(x)
        return x


def pool_depth(x: Float[Array, "bd h w c"], batch: int, factor: int) -> Float[Array, "bd2 h w c"]:
    """Mean over groups of `factor` neighboring slices of each batch item."""
    if factor == 1:
        return x
    depth = x.shape[0] // batch
    if depth % factor:
        raise ValueError(f"a depth of {depth} slices cannot be pooled by {factor}")
    groups = x.reshape(batch * depth // factor, factor, *x.shape[1:])
    return groups.mean(axis=1, dtype=jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)


def pixel_shuffle(x: Float[Array, "b d h w k"], factor: tuple[int, int, int]) -> Float[Array, "b c d2 h2 w2"]:
    """Channels ((class dz) dy) dx become a channel-first heatmap that is `factor` times as fine (z, y, x)."""
    b, d, h, w, k = x.shape
    steps = phases.pixel_shuffle(b, k, (d, h, w), factor, channels_last=True)
    return x.reshape(steps.split).transpose(steps.order).reshape(steps.merged)
