"""Checks calls of functions whose annotations state the shapes of arrays; the rest is mypy's to check."""

import re
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

SHAPE = re.compile(r"\b(Float\d*|Int\d*|UInt\d*|Bool|Complex|Num|Key|Shaped|Real|Inexact)\[")
REPLICATED = ("Batch.", "Collection.", "LossScale.", "TrainState.")
"""Trees that JAX also makes with other leaves: a copy for each device, or what a map returns."""
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # whole numbers pass for fractions, as in mypy


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    if function.__qualname__.startswith(REPLICATED):
        return function
    hints = getattr(function, "__annotations__", {})
    return _check(function) if any(SHAPE.search(str(hint)) for hint in hints.values()) else function
