"""Where windows lie over a volume, and how much each voxel of a window counts.

Plans are made on the host; everything that is compiled gets its shapes from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from jaxcryo.errors import InputError
from jaxcryo.tomogram.padding import padding_needed


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisPlan:
    """The windows along one axis. Starts are voxels of the padded axis, which begins `pad_before` voxels outside."""

    size: int
    window: int
    starts: tuple[int, ...]
    pad_before: int
    padded: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """The grid of windows over a volume: every combination of the three axes' starts."""

    z: AxisPlan
    y: AxisPlan
    x: AxisPlan
    patch_zyx: tuple[int, int, int]
    stride_zyx: tuple[int, int, int]
    slices: tuple[int, int]
    """The volume's slices whose heatmaps are wanted, from one up to another."""
    chosen: Bool[NDArray[np.bool_], "layers n"] | None = None
    """Which windows to compute, for each start in z those of `starts_yx`; None is all."""

    def of_slices(self, start: int, stop: int) -> WindowPlan:
        """The windows that reach into these slices, whose heatmaps are then the same as with all windows."""
        first = [z - self.z.pad_before for z in self.z.starts]
        starts = tuple(z for z, f in zip(self.z.starts, first, strict=True) if f < stop and f + self.z.window > start)
        return dataclasses.replace(self, z=dataclasses.replace(self.z, starts=starts), slices=(start, stop))

    @property
    def count(self) -> int:
        """Number of windows to compute."""
        if self.chosen is not None:
            return int(self.chosen.sum())
        return len(self.z.starts) * len(self.y.starts) * len(self.x.starts)

    def starts_of_layer(
        self, layer: int, among: Bool[NDArray[np.bool_], "n"] | None = None
    ) -> Int[NDArray[np.int32], "chosen 2"]:
        """The starts of the windows to compute at one start in z; those `among` others if given."""
        starts = self.starts_yx()
        wanted = np.ones(len(starts), np.bool_) if self.chosen is None else self.chosen[layer]
        return starts[wanted if among is None else wanted & among]

    def slices_of_layer(self, layer: int) -> tuple[int, int]:
        """The volume's slices, from one up to another, that the windows at one start in z see."""
        first = self.z.starts[layer] - self.z.pad_before
        return max(first, 0), min(first + self.z.window, self.z.size)

    def padding_of_layer(self, layer: int) -> list[tuple[int, int]]:
        """How far the windows at one start in z reach beyond the volume, before and after it along z, y, x."""
        first = self.z.starts[layer] - self.z.pad_before
        start, stop = self.slices_of_layer(layer)
        sides = [(a.pad_before, a.padded - a.size - a.pad_before) for a in (self.y, self.x)]
        return [(start - first, first + self.z.window - stop), *sides]

    def starts_yx(self) -> Int[NDArray[np.int32], "n 2"]:
        """The starts of one layer's windows, x fastest."""
        return np.array([(y, x) for y in self.y.starts for x in self.x.starts], np.int32).reshape(-1, 2)


def plan_axis(size: int, window: int, stride: int) -> AxisPlan:
    """As few windows at this stride as cover the axis; one where it is shorter than a window.

    What they overhang is split onto both ends, so that the volume's rim is not at the windows' rim, where weights
    are low (the paper pads 630 to 656 voxels for a window of 128 and a stride of 48, section 2.5).

    Raises:
        InputError: the stride leaves voxels between two windows out.
    """
    if not 1 <= stride <= window:
        raise InputError(f"windows of {window} voxels have a stride of {stride}; expected 1 to {window}")
    count = -(-max(size - window, 0) // stride) + 1
    padded = (count - 1) * stride + window
    return AxisPlan(
        size=size,
        window=window,
        starts=tuple(i * stride for i in range(count)),
        pad_before=(padded - size) // 2,
        padded=padded,
    )


def plan_windows(
    shape_zyx: tuple[int, int, int], patch_zyx: tuple[int, int, int], stride_zyx: tuple[int, int, int]
) -> WindowPlan:
    """The windows that cover a volume.

    Raises:
        InputError: the volume is much smaller than one window, or a stride is not between 1 and the window's size.
    """
    padding_needed("the volume", shape_zyx, patch_zyx)
    z, y, x = (plan_axis(*axis) for axis in zip(shape_zyx, patch_zyx, stride_zyx, strict=True))
    return WindowPlan(z=z, y=y, x=x, patch_zyx=patch_zyx, stride_zyx=stride_zyx, slices=(0, shape_zyx[0]))


def windows_that_reach(
    plan: WindowPlan, inside: Callable[[int, int], Bool[NDArray[np.bool_], "z y x"]], *, margin: int
) -> Bool[NDArray[np.bool_], "layers n"]:
    """Which windows cover a voxel of a region, or a voxel within `margin` voxels of it along each axis.

    `inside` gives the region's slices from one up to another, and is asked for them in ascending order.
    """
    layers = []
    for start in plan.z.starts:
        first = start - plan.z.pad_before
        slices = inside(max(first - margin, 0), min(first + plan.z.window + margin, plan.z.size))
        layers.append(windows_over(plan, slices, margin=margin))
    return np.stack(layers)


def windows_over(
    plan: WindowPlan, region: Bool[NDArray[np.bool_], "z y x"], *, margin: int = 0
) -> Bool[NDArray[np.bool_], "n"]:
    """Which windows of a layer cover a voxel of a region, given in the slices that count, or come as near along y and x
    as `margin` voxels."""
    starts = plan.starts_yx()
    (y0, y1), (x0, x1) = (
        _limits(axis, starts[:, place] - margin, axis.window + 2 * margin)
        for place, axis in enumerate((plan.y, plan.x))
    )
    flat = region.any(axis=0)
    counts = np.zeros((region.shape[1] + 1, region.shape[2] + 1), np.int64)
    counts[1:, 1:] = flat.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    return counts[y1, x1] - counts[y0, x1] - counts[y1, x0] + counts[y0, x0] > 0


def _limits(
    axis: AxisPlan, starts: Int[NDArray[np.int32], "n"], length: int
) -> tuple[Int[NDArray[np.int32], "n"], Int[NDArray[np.int32], "n"]]:
    """From where up to where spans of the padded axis lie in the volume."""
    low = starts - axis.pad_before
    return np.clip(low, 0, axis.size), np.clip(low + length, 0, axis.size)


def weight_factors(
    patch_zyx: tuple[int, int, int],
) -> tuple[Float[NDArray[np.float32], "d"], Float[NDArray[np.float32], "h w"]]:
    """The two factors of `window_weight`: along z, and over y and x; the largest value of each is 1."""
    z, y, x = (_triangle(n) for n in patch_zyx)
    yx = np.minimum(y[:, None], x[None, :])
    return (z / z.max()).astype(np.float32), (yx / yx.max()).astype(np.float32)


def window_weight(patch_zyx: tuple[int, int, int]) -> Float[NDArray[np.float32], "d h w"]:
    """How much each voxel of a window counts: 1 at the center, falling linearly towards 0 at the edges.

    min(w_y, w_x) · w_z with triangles sampled at voxels' centres, so that it is above 0 in the outermost voxels too
    (section 2.5; the published validation code).
    """
    z, yx = weight_factors(patch_zyx)
    return z[:, None, None] * yx


def weight_sums(plan: WindowPlan) -> tuple[Float[NDArray[np.float32], "z"], Float[NDArray[np.float32], "y x"]]:
    """The weights of all windows summed in every voxel of the padded volume, as two factors.

    The sum over z, y, x starts of w(z) · w(y, x) is the product of the sums, so no weight volume is needed.
    """
    weight_z, weight_yx = weight_factors(plan.patch_zyx)
    z_profile = np.zeros(plan.z.padded)
    for z in plan.z.starts:
        z_profile[z : z + plan.z.window] += weight_z
    yx_map = np.zeros((plan.y.padded, plan.x.padded))
    for y, x in plan.starts_yx():
        yx_map[y : y + plan.y.window, x : x + plan.x.window] += weight_yx
    return z_profile.astype(np.float32), yx_map.astype(np.float32)


def _triangle(size: int) -> Float[NDArray[np.float64], "n"]:
    from_center: NDArray[np.float64] = np.abs(np.arange(size) + 0.5 - size / 2)
    return 1 - from_center / (size / 2)
