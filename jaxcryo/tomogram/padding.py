"""Tomograms smaller than a window."""

from __future__ import annotations

from jaxcryo.errors import InputError

_LEAST_SHARE = 0.25
"""The least share of a window along an axis: with less, a network sees little but padding."""


def padding_needed(name: str, shape_zyx: tuple[int, int, int], window_zyx: tuple[int, int, int]) -> str | None:
    """A sentence on a tomogram that is padded to a window, as borders are; None if it is as large as one.

    Raises:
        InputError: it is so small that nothing sensible is left.
    """
    sizes = f"{_x(shape_zyx)} voxels (z, y, x) for windows of {_x(window_zyx)}"
    if any(n < _LEAST_SHARE * w for n, w in zip(shape_zyx, window_zyx, strict=True)):
        raise InputError(
            f"{name}: has {sizes}; expected at least a quarter of a window along each axis: leave it out, or use a "
            "network with smaller windows"
        )
    if any(n < w for n, w in zip(shape_zyx, window_zyx, strict=True)):
        return f"{name}: has {sizes}: padded like a border"
    return None


def _x(shape: tuple[int, int, int]) -> str:
    return "×".join(map(str, shape))
