"""How the same work on many items is put to the device at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax

Result = TypeVar("Result")


def each(work: Callable[..., Result], *items: Any) -> Result:
    """`work` on every item along the first axis.

    On CPUs one after the other: an item stays in the cache, and what a condition rules out is not done. Elsewhere all
    at once: many small kernels would leave the device idle.
    """
    if jax.default_backend() == "cpu":
        result: Result = lax.map(lambda item: work(*item), items)
        return result
    return jax.vmap(work)(*items)
