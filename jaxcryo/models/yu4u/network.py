"""yu4u's network (paper section 2.3, figure 1)."""

from __future__ import annotations

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxcryo.errors import InputError
from jaxcryo.models.layers import Conv, ConvBlock, DecoderBlock, Init, pixel_shuffle, pool_depth
from jaxcryo.models.yu4u.config import Yu4uConfig
from jaxcryo.models.yu4u.encoder import ConvNeXt


class Yu4u(nnx.Module):
    """A ConvNeXt on every slice, depth pooled after each stage, a 3-D decoder that ends at stride 4."""

    def __init__(self, config: Yu4uConfig, *, dtype: DTypeLike = jnp.float32, init: Init):
        widths = config.encoder.widths
        if len(config.decoder_widths) != len(widths) - 1:
            raise InputError(f"{len(widths)} encoder stages need {len(widths) - 1} decoder widths")
        self.config = config
        self.encoder = ConvNeXt(config.encoder, dtype=dtype, init=init)
        self.lateral = nnx.List(
            nnx.List([ConvBlock(w, w, dtype=dtype, init=init), ConvBlock(w, w, dtype=dtype, init=init)]) for w in widths
        )
        inputs = (widths[-1], *config.decoder_widths[:-1])
        self.decoder = nnx.List(
            DecoderBlock(i, skip, o, 1 if n == 0 else 2, dtype=dtype, init=init)
            for n, (i, skip, o) in enumerate(zip(inputs, widths[-2::-1], config.decoder_widths, strict=True))
        )
        # Small: large first heatmaps would leave Adam with small steps for a thousand more.
        self.head = Conv(
            config.decoder_widths[-1], config.classes * config.head_stride**3, (1, 1, 1), bias=True, init_scale=0.01,
            dtype=dtype, init=init,
        )  # fmt: skip

    def __call__(self, windows: Float[Array, "b d h w"]) -> Float[Array, "b c d h w"]:
        """Heatmaps in float32, linear (no sigmoid).

        Raises:
            InputError: the strides do not divide the windows' size.
        """
        batch = windows.shape[0]
        pools = depth_pools(windows.shape[1:])
        x = rearrange(neighbor_slices(windows, self.config.neighbors), "b d h w c -> (b d) h w c")
        maps = []
        for stage, pool, lateral in zip(self.encoder.stages, pools, self.lateral, strict=True):
            x = pool_depth(stage(x), batch, pool)
            y = rearrange(x, "(b d) h w c -> b d h w c", b=batch)
            for conv in lateral:
                y = conv(y)
            maps.append(y)
        y = maps.pop()
        for block in self.decoder:
            y = block(y, maps.pop())
        return pixel_shuffle(self.head(y).astype(jnp.float32), (self.config.head_stride,) * 3)


def neighbor_slices(windows: Float[Array, "b d h w"], neighbors: int) -> Float[Array, "b d h w c"]:
    """Each slice with its neighbors in ascending z as channels, zeros past the window's ends (`SlidingSlicer`)."""
    depth = windows.shape[1]
    padded = jnp.pad(windows, ((0, 0), (neighbors, neighbors), (0, 0), (0, 0)))
    return jnp.stack([padded[:, i : i + depth] for i in range(2 * neighbors + 1)], axis=-1)


def depth_pools(patch_zyx: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The factor by which depth is pooled after each of the four stages (the rule in `Timm3DDecoder3.forward`).

    Raises:
        InputError: the strides do not divide the size.
    """
    depth, height, width = patch_zyx
    pools: list[int] = []
    pooled, current = 0, depth
    for stride in (4, 8, 16, 32):
        if pooled >= 4:
            k = 1
        elif current and stride > depth * 2 // current:
            k, pooled = 4, pooled + 2
        else:
            k, pooled = 2, pooled + 1
        pools.append(k)
        current //= k
    first, second, third, _ = pools
    if depth % (first * second * third) or height % 32 or width % 32 or (second, third) != (2, 2):
        raise InputError(
            f"yu4u's network cannot take windows of {depth}x{height}x{width}: the depth must be a multiple of 16, "
            "height and width of 32"
        )
    return first, second, third, pools[3]
