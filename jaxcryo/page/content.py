"""Picks, truth and settings as the plain values that a page's script reads."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray

from jaxcryo.domain import CENTER_OFFSET_VOXEL, LABEL_OFFSET_VOXEL, ParticleType, Picks, VoxelGrid
from jaxcryo.metric import BETA, RADIUS_SHARE

MAX_PICKS = 5000
"""Most picks of one type in a page, best first; more are neither looked at nor drawn smoothly."""
_MAX_ALL = 40_000
"""Of all types together."""
_STEP = 0.001
"""Of thresholds."""
# Okabe and Ito's colors for color-blind readers, except black; brightened for gray images.
_COLORS = (
    (240, 170, 0),
    (96, 190, 245),
    (0, 190, 130),
    (245, 235, 70),
    (30, 140, 230),
    (240, 110, 20),
    (225, 130, 185),
)


def types_content(
    types: Sequence[ParticleType], picks: Picks, truth: Picks | None, grid: VoxelGrid, floor: float
) -> list[dict[str, Any]]:
    """Each type with its picks above `floor`, best first, and its ground truth if known.

    Positions and scores are the very numbers that the metric sees: the page's counts are those of Python.
    """
    score = np.zeros(len(picks)) if picks.score is None else picks.score
    content = []
    for index, (kind, color) in enumerate(zip(types, colors(types), strict=True)):
        shown = shown_order(picks, index, len(types))
        left_out = int((picks.type_index == index).sum()) - len(shown)
        # Below the last of the shown ones some are left out, so thresholds cannot go there.
        lowest = math.ceil(score[shown[-1]] / _STEP) * _STEP if left_out else floor
        content.append(
            {
                "name": kind.name,
                "radius_angstrom": kind.radius_angstrom,
                "weight": kind.weight,
                "threshold": kind.threshold,
                "color": list(color),
                "lowest": round(lowest, 6),
                "left_out": left_out,
                "picks": {**_places(picks.xyz_angstrom[shown], grid), "score": packed(score[shown])},
                "truth": None if truth is None else _places(truth.of_type(index), grid),
            }
        )
    return content


def shown_order(picks: Picks, index: int, classes: int) -> Int[NDArray[np.int64], " n"]:
    """The picks of a type that are in a page, from the best down."""
    mine = np.flatnonzero(picks.type_index == index)
    score = np.zeros(len(picks)) if picks.score is None else picks.score
    return mine[np.argsort(-score[mine], kind="stable")][: min(MAX_PICKS, _MAX_ALL // classes)]


def metric_content() -> dict[str, float]:
    """The metric's constants."""
    return {"beta": BETA, "radius_share": RADIUS_SHARE}


def colors(types: Sequence[ParticleType]) -> list[tuple[int, int, int]]:
    """The types' own colors, or others if these are too similar."""
    own = [t.color for t in types]
    return own if len(set(own)) == len(own) else [_COLORS[i % len(_COLORS)] for i in range(len(types))]


def packed(values: ArrayLike) -> str:
    """Numbers as base64 of little-endian float64."""
    return base64.b64encode(np.asarray(values, "<f8").tobytes()).decode("ascii")


def _places(xyz_angstrom: Float[NDArray[np.float64], "n 3"], grid: VoxelGrid) -> dict[str, str]:
    return {"xyz_angstrom": packed(xyz_angstrom), "zyx_voxel": packed(grid.to_voxel(xyz_angstrom))}


def grid_content(grid: VoxelGrid) -> dict[str, Any]:
    """The tomogram's size and spacing, and the offset of a voxel's position before it is multiplied by the spacing."""
    return dataclasses.asdict(grid) | {"offset_voxel": CENTER_OFFSET_VOXEL - LABEL_OFFSET_VOXEL}
