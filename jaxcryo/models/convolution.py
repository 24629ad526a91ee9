"""Convolutions in several formulations with the same result, each the fastest on some backend.

This is the one place where a formulation is chosen. All arrays are channel-last; all convolutions have odd kernels,
stride 1 and zero padding that keeps the size, unless they say otherwise.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import lax
from jaxtyping import Array, Float

from jaxcryo.models.phases import PHASE_PADDING, phase_taps

Formulation = Literal["native", "unrolled"]


def best_formulation() -> Formulation:
    """`unrolled` on CPUs, where XLA has no fast 3-D, depthwise or upsampled convolution; `native` elsewhere."""
    return "unrolled" if jax.default_backend() == "cpu" else "native"


def conv2d(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw i_of_group o"],
    *,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], tuple[int, int]] = 0,
    groups: int = 1,
) -> Float[Array, "b h2 w2 o"]:
    """A 2-D convolution, padded with zeros on all sides."""
    if stride > 1 and kernel.shape[:2] == (stride, stride) and padding == 0 and groups == 1:
        # Patches that do not overlap: one matrix product.
        patches = rearrange(x, "b (h p) (w q) i -> b h w (p q i)", p=stride, q=stride)
        return patches @ kernel.reshape(-1, kernel.shape[-1])
    pads = ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )


def depthwise2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], formulation: Formulation
) -> Float[Array, "b h w c"]:
    """Every channel by its own 2-D kernel."""
    kh, kw, _, channels = kernel.shape
    if formulation == "native":
        return conv2d(x, kernel, padding=((kh // 2, kh // 2), (kw // 2, kw // 2)), groups=channels)
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    taps = (padded[:, i : i + h, j : j + w] * kernel[i, j, 0] for i in range(kh) for j in range(kw))
    return sum(taps, start=jnp.zeros((), x.dtype))


def depthwise3d(
    x: Float[Array, "b d h w c"], kernel: Float[Array, "kd kh kw 1 c"], dilation: int, formulation: Formulation
) -> Float[Array, "b d h w c"]:
    """Every channel by its own dilated 3-D kernel."""
    channels = kernel.shape[-1]
    reach = [dilation * (k // 2) for k in kernel.shape[:3]]
    if formulation == "native":
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1, 1),
            [(r, r) for r in reach],
            rhs_dilation=(dilation,) * 3,
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
            feature_group_count=channels,
        )
    total = jnp.zeros((), x.dtype)
    for i, j, k in _taps(kernel.shape[:3]):
        offsets = [dilation * (t - s // 2) for t, s in zip((i, j, k), kernel.shape[:3], strict=True)]
        if all(abs(o) < size for o, size in zip(offsets, x.shape[1:4], strict=True)):
            total = total + _shift(x, offsets) * kernel[i, j, k, 0]
    return total


def conv3d(
    x: Float[Array, "b d h w i"], kernel: Float[Array, "kd kh kw i o"], formulation: Formulation, *, dilation: int = 1
) -> Float[Array, "b d h w o"]:
    """A 3-D convolution; a dilated one is `native` only.

    `unrolled`: a sum over the kernel's depth of 2-D convolutions of all slices at once; slices that a tap would take
    from the depth padding are not computed, so at depth 1 only the middle tap remains.
    """
    kd, kh, kw = kernel.shape[:3]
    if formulation == "native":
        return lax.conv_general_dilated(
            x,
            kernel,
            (1, 1, 1),
            [(dilation * (k // 2),) * 2 for k in (kd, kh, kw)],
            rhs_dilation=(dilation,) * 3,
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
    padding = ((kh // 2, kh // 2), (kw // 2, kw // 2))
    return _sum_over_depth_taps(x, [lambda s, t=t: conv2d(s, kernel[t], padding=padding) for t in range(kd)], kd // 2)


def upsampled_conv3d(
    x: Float[Array, "b d h w i"], kernel: Float[Array, "3 3 3 i o"], depth_factor: int, formulation: Formulation
) -> Float[Array, "b d2 h2 w2 o"]:
    """`conv3d` of x after nearest upsampling by (depth_factor, 2, 2), depth_factor 1 or 2.

    `unrolled` never makes the upsampled array (`phases.phase_taps`).
    """
    if formulation == "native":
        return conv3d(upsample(x, depth_factor), kernel, formulation)
    b, d, h, w, _ = x.shape
    out = kernel.shape[-1]
    folded = _fold_taps(_fold_taps(kernel, axis=1), axis=3)  # depth, y phase, y tap, x phase, x tap, in, out

    def phases(slices: Float[Array, "n h w i"], plane: Float[Array, "2 2 2 2 i o"]) -> Float[Array, "n h2 w2 o"]:
        parts = [
            [conv2d(slices, plane[py, :, px], padding=(PHASE_PADDING[py], PHASE_PADDING[px])) for px in range(2)]
            for py in range(2)
        ]
        joined = jnp.stack([jnp.stack(row, axis=3) for row in parts], axis=2)
        return rearrange(joined, "n h py w px o -> n (h py) (w px) o")

    if depth_factor == 1:
        return _sum_over_depth_taps(x, [lambda s, t=t: phases(s, folded[t]) for t in range(3)], 1)
    first, second = (_fold_taps(folded, axis=0)[p] for p in range(2))
    even = _sum_over_depth_taps(x, [lambda s, t=t: phases(s, first[t]) for t in range(2)], 1)
    odd = _sum_over_depth_taps(x, [lambda s, t=t: phases(s, second[t]) for t in range(2)], 0)
    return jnp.stack([even, odd], axis=2).reshape(b, 2 * d, 2 * h, 2 * w, out)


def upsample(x: Float[Array, "b d h w c"], depth_factor: int) -> Float[Array, "b d2 h2 w2 c"]:
    """Nearest upsampling by (depth_factor, 2, 2)."""
    for axis, factor in ((1, depth_factor), (2, 2), (3, 2)):
        x = jnp.repeat(x, factor, axis=axis) if factor > 1 else x
    return x


def _fold_taps(kernel: Array, axis: int) -> Array:
    """Three taps along `axis` become (phase, two taps)."""
    taps = [lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3)]
    return jnp.stack([jnp.stack(phase_taps(*taps, phase=phase), axis) for phase in range(2)], axis)


def _sum_over_depth_taps(x, taps, center: int):  # type: ignore[no-untyped-def]
    """The sum over t of taps[t] applied to the slices at depth + t - center, zeros beyond the ends."""
    depth = x.shape[1]
    total = None
    for t in sorted(range(len(taps)), key=lambda t: abs(t - center)):
        offset = t - center
        if abs(offset) >= depth:
            continue
        slices = x[:, max(0, offset) : depth + min(0, offset)]
        flat = taps[t](rearrange(slices, "b d h w c -> (b d) h w c"))
        part = rearrange(flat, "(b d) h w c -> b d h w c", b=x.shape[0])
        part = jnp.pad(part, ((0, 0), (max(0, -offset), max(0, offset)), (0, 0), (0, 0), (0, 0)))
        total = part if total is None else total + part
    return total


def _shift(x: Float[Array, "b d h w c"], offsets: list[int]) -> Float[Array, "b d h w c"]:
    """x shifted so that index p holds the value from p + offset, zeros from outside."""
    for axis, offset in enumerate(offsets, start=1):
        kept = lax.slice_in_dim(x, max(0, offset), x.shape[axis] + min(0, offset), axis=axis)
        pads = [(0, 0)] * x.ndim
        pads[axis] = (max(0, -offset), max(0, offset))
        x = jnp.pad(kept, pads)
    return x


def _taps(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(i, j, k) for i in range(shape[0]) for j in range(shape[1]) for k in range(shape[2])]
