"""The level of a type's scores in given tomograms, which roughly separates particles from noise; needs no truth."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_BEST = 3
"""Scores of a tomogram that say how high particles come."""
_SHARE = 0.45
"""Of these, where noise ends in most tomograms."""
_LOWEST = 0.1
"""Of these, below which scores are not looked at."""
_BINS = 64
_LEAST = 20
"""Fewer scores have no distribution."""


def score_level(score: Float[NDArray[np.float64], " n"], tomograms: int) -> float | None:
    """The score that separates particles from noise; None if there are too few scores.

    The geometric mean of two estimates that fail in different tomograms: a share of the best scores' mean, and the
    maximum-entropy threshold of the histogram (Kapur, Sahoo and Wong, 1985). Scores multiplied
    by a number give a level multiplied by it; their order does not matter.
    """
    ordered = np.sort(np.asarray(score, np.float64))[::-1]
    ordered = ordered[ordered > 0]
    if tomograms < 1 or len(ordered) < _LEAST:
        return None
    top = float(np.mean(ordered[: _BEST * tomograms]))
    shares = ordered[ordered > _LOWEST * top] / top
    if len(shares) < _LEAST:
        return None
    return top * math.sqrt(_SHARE * _most_entropy(shares))


def _most_entropy(shares: Float[NDArray[np.float64], " n"]) -> float:
    counts, edges = np.histogram(shares, np.linspace(_LOWEST, max(float(shares[0]), 1.0), _BINS + 1))
    share = counts / counts.sum()
    below = np.cumsum(share)
    # A bin's part of the entropy; that of an empty one is 0.
    part = np.cumsum(np.where(counts > 0, -share * np.log(np.maximum(share, 1e-300)), 0.0))
    inner = (below > 0) & (below < 1 - 1e-12)
    if not inner.any():
        return _SHARE
    low, high = below[inner], 1 - below[inner]
    entropy = np.log(low * high) + part[inner] / low + (part[-1] - part[inner]) / high
    return float(edges[1:][inner][int(np.argmax(entropy))])
