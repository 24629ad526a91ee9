"""Orders of axes and taps on which a network and its ONNX graph must agree, whatever holds the arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

PHASE_PADDING = ((1, 0), (0, 1))
"""Padding of a convolution after nearest upsampling by 2: its phase 0 looks one voxel back, phase 1 one ahead."""


def phase_taps(w0: Any, w1: Any, w2: Any, *, phase: int) -> tuple[Any, Any]:
    """Three taps on an axis that is upsampled by 2 (nearest), as the two taps that a phase of the output sees.

    Each output voxel has two neighbors among the input's: (w0, w1 + w2) in phase 0, (w0 + w1, w2) in phase 1. Exact,
    the zero padding included.
    """
    return (w0, w1 + w2) if phase == 0 else (w0 + w1, w2)


def phases_of_slice(kernel: Any, depth_factor: int) -> tuple[Any, ...]:
    """The planes (over y and x) with which the depth phases see a single slice: from the two taps, the one on it."""
    if depth_factor == 1:
        return (kernel[1],)
    return tuple(phase_taps(kernel[0], kernel[1], kernel[2], phase=phase)[1 - phase] for phase in range(2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffle:
    """A 3-D pixel shuffle as a split of axes, a transposition and a merging of axes."""

    split: tuple[int, ...]
    order: tuple[int, ...]
    merged: tuple[int, ...]


def pixel_shuffle(
    batch: int, outputs: int, size_zyx: tuple[int, int, int], factor_zyx: tuple[int, int, int], *, channels_last: bool
) -> Shuffle:
    """Channels ((class dz) dy) dx to heatmaps (b, c, z, y, x) that are `factor_zyx` times as fine."""
    fz, fy, fx = factor_zyx
    (d, h, w), c = size_zyx, outputs // (fz * fy * fx)
    split = (batch, d, h, w, c, fz, fy, fx) if channels_last else (batch, c, fz, fy, fx, d, h, w)
    order = (0, 4, 1, 5, 2, 6, 3, 7) if channels_last else (0, 1, 5, 2, 6, 3, 7, 4)
    return Shuffle(split=split, order=order, merged=(batch, c, d * fz, h * fy, w * fx))
