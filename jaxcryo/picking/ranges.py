"""Ranges of slices in which one tomogram is shared out, with the very peaks that the whole has."""

from __future__ import annotations

import itertools
import math

from jaxcryo.picking.peaks import STEP_SLICES


def z_ranges(depth: int, count: int, *, multiple: int = 1) -> tuple[tuple[int, int], ...]:
    """As many ranges, each from one slice up to another, that follow each other and differ little in height.

    They begin where steps of the search for peaks do, at a multiple of `multiple`; where there are fewer such places
    than ranges, some are empty.
    """
    step = math.lcm(STEP_SLICES, multiple)
    steps = -(-depth // step)
    return tuple(itertools.pairwise(min(steps * i // count * step, depth) for i in range(count + 1)))
