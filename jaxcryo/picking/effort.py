"""Fewer windows for nearly the same picks: strides that trade accuracy for speed."""

from __future__ import annotations

import typing
from typing import Literal

Effort = Literal["full", "balanced", "fast"]
EFFORTS: tuple[Effort, ...] = typing.get_args(Effort)

_STRIDE_SHARES: dict[Effort, tuple[float, float, float]] = {
    "full": (0, 0, 0),
    "balanced": (1 / 2, 5 / 8, 5 / 8),
    "fast": (3 / 4, 7 / 8, 7 / 8),
}
"""Stride as a share of the window, z, y, x; chosen from the scores and times in docs/effort.md."""


def stride_of(
    effort: Effort, patch_zyx: tuple[int, int, int], recipe_stride_zyx: tuple[int, int, int]
) -> tuple[int, int, int]:
    """The stride of windows of a size, in voxels; never below the recipe's, which is the one of `full`."""
    z, y, x = (
        max(own, int(share * size))
        for share, size, own in zip(_STRIDE_SHARES[effort], patch_zyx, recipe_stride_zyx, strict=True)
    )
    return z, y, x
